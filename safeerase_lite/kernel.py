"""The kernel of the interpreter that runs this process, whatever kernelspecs are installed."""

from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from traitlets import default


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels with `sys.executable`.

    A kernelspec "python3" in the user's folder or on $JUPYTER_PATH may name another python, one
    that has other libraries or none. With no folder to look in, jupyter_client falls back on the
    native kernel: this interpreter's own.
    """

    @default("kernel_spec_manager")
    def _look_in_no_folder(self) -> KernelSpecManager:
        return KernelSpecManager(parent=self, kernel_dirs=[])
