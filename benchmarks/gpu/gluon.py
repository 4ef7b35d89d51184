"""Stage `gluon`: the forms of the Gluon kernel and the table's, right or wrong and timed, in processes of their own."""

from attnmod.benchmarks.gpu import risky
from attnmod.benchmarks.gpu.report import LeftOut, Report
from attnmod.benchmarks.launches import Case
from attnmod.kernels import configs


def run(report: Report) -> None:
    if report.device.type != "cuda" or configs.architecture(report.device) != "sm_90":
        with report.check("candidates"):
            raise LeftOut("needs a GPU of compute capability 9.0")
    else:
        risky.Process(report, "gluon").tell()


def cases(toy: bool, more: bool, architecture: str) -> list[Case]:
    return risky.cases(toy, architecture, "gluon")
