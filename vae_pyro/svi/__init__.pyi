from .compiled_svi import CompiledSVI as CompiledSVI
from .stock import SVIFallbackWarning as SVIFallbackWarning
