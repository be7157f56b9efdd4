from .compiled_svi import CompiledSVI as CompiledSVI
from .status import SVIStatus as SVIStatus
from .stock import SVIFallbackWarning as SVIFallbackWarning
