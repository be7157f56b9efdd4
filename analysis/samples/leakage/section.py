"""Leakage of test data in the report."""

from analysis.diagnostics.context import Context
from analysis.diagnostics.diagnostic import DIAGNOSTICS, Diagnostic
from analysis.results.blocks import Listing, Section
from analysis.results.text import flow
from analysis.samples.leakage.check import held_out_check
from analysis.samples.leakage.result import Leakage

_REFERENCES = ("Meehan, Chaudhuri & Dasgupta 2020, A non-parametric test to detect data-copying. arXiv:2004.05675",)


@DIAGNOSTICS.add
class Overlap(Diagnostic[Leakage]):
    """Whether test data are among the training data."""

    name, title, order = "leakage", "Overlap of test and training data", 90
    question = "Is the test set held out?"
    requires = ("train",)

    def run(self, context: Context) -> Leakage:
        assert context.train is not None
        return held_out_check(context.train, context.stored, seed=context.stream(12))

    def section(self, result: Leakage) -> Section:
        return Section(
            self.title,
            [Listing(str(result))],
            verdicts=result.verdicts,
            methods=flow(
                f"""
                Rows of the test set are searched for among the training rows, as stored, and nearest-neighbour
                distances of test data are compared with those of training data that were set aside
                ({result.compared}).
                """
            ),
            references=_REFERENCES,
            metrics=result.summary(),
            name=self.name,
        )
