"""A slow twin of the scheduling scripts, which looks at everything that is queued for every decision."""

from dataclasses import dataclass, field

PRIORITIES = ["interactive", "normal", "batch"]


@dataclass
class TwinJob:
    owner: str
    priority: str
    shards: dict
    time: float
    since: int

    def queued(self, *, long_too):
        return [number for number, (_, is_long) in self.shards.items() if long_too or not is_long]


@dataclass
class ScheduleTwin:
    """Weights of keys; whether every job counts as one that has waited too long, or none."""

    weights: dict
    ages: bool
    jobs: dict = field(default_factory=dict)
    times: dict = field(default_factory=dict)
    clocks: dict = field(default_factory=dict)
    was_aged: dict = field(default_factory=dict)
    long: list = field(default_factory=list)
    canceled: set = field(default_factory=set)
    ticks: int = 0

    def create(self, job, owner, priority, shards):
        if not self._of(owner):
            self.times[owner] = max(self.times.get(owner, 0.0), self.clocks.get("owners", 0.0))
        self.ticks += 1
        time = self.clocks.get((owner, priority), 0.0)
        self.jobs[job] = TwinJob(owner, priority, dict(enumerate(shards)), time, self.ticks)

    def cancel(self, job):
        self.canceled.add(job)
        if job in self.jobs:
            self._drop(job)

    def take(self, worker, slots):
        busy = sum(1 for job, of in self.long if of == worker and job is not None)
        long_too = slots == 1 or busy < slots - 1
        owners = {job.owner for job in self.jobs.values() if job.queued(long_too=long_too)}
        if not owners:
            return None
        owner = min(owners, key=lambda each: (self.times[each], each))
        job = self._due(owner, long_too)
        chosen = self.jobs[job]
        numbers = chosen.queued(long_too=long_too)
        number = min(numbers, key=lambda each: (not chosen.shards[each][1], each))
        self._start(job, number, worker)
        return job, number

    def _of(self, owner):
        return {name: job for name, job in self.jobs.items() if job.owner == owner}

    def _due(self, owner, long_too):
        ready = {name: job for name, job in self._of(owner).items() if job.queued(long_too=long_too)}
        if self.ages and not self.was_aged.get(owner):
            oldest = sorted(self._of(owner), key=lambda name: self.jobs[name].since)[:8]
            for name in oldest:
                if name in ready:
                    self.was_aged[owner] = True
                    return name
        self.was_aged[owner] = False
        return min(ready, key=lambda name: (PRIORITIES.index(ready[name].priority), ready[name].time, name))

    def _start(self, name, number, worker):
        job = self.jobs[name]
        seconds, is_long = job.shards.pop(number)
        for clock, time in (("owners", self.times[job.owner]), ((job.owner, job.priority), job.time)):
            self.clocks[clock] = max(self.clocks.get(clock, 0.0), time)
        self.times[job.owner] += seconds / self.weights[job.owner]
        job.time += seconds
        self.ticks += 1
        job.since = self.ticks
        if is_long:
            self.long.append((name, worker))
        if not job.shards:
            self._drop(name)

    def _drop(self, name):
        owner = self.jobs.pop(name).owner
        if not self._of(owner):
            self.was_aged[owner] = False
