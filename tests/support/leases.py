"""Takes a shard by its number, as a worker takes the one that is due."""

from functools import cache
from importlib.resources import files

from masksmith_state.jobs import schedule
from masksmith_state.queue import CPU_QUEUE

_TAKE = """
local outcome = take_shard(unpack(ARGV))
if outcome[1] ~= '' then outcome[7] = 0 end
return outcome
"""


@cache
def _script():
    folder = files("masksmith_state.jobs") / "lua"
    names = sorted(path.name for path in folder.iterdir() if path.name.startswith("_"))
    return "\n".join((folder / name).read_text("utf-8") for name in names) + _TAKE


def take(records, job, shard, *, lease_s=60.0, attempts=3):
    """Take the lease of one shard, or return why it was not granted: `closed`, `done`, `held`, `exhausted`."""
    report = schedule.exhausted_report(attempts, CPU_QUEUE)
    token, *values = records.redis.eval(_script(), 0, job, shard, int(lease_s * 1000), attempts, report)
    return schedule._lease(token, values) if token else values[0]


def run_shard(runner, job, shard):
    """Run one shard; return the outcome, or the reason why it was not taken."""
    lease = take(runner.records, job, shard, lease_s=runner._lease_s, attempts=runner._attempts)
    return lease if isinstance(lease, str) else runner.run(lease)
