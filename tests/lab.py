"""A genomics lab's week, for tests of the web UI and for looking at it: twenty batches, twelve workers, failures of every kind.

    week = Week(env)      # env has a server; it is started again once
    ...
    week.close()

All of it came about through the API, by workers that only say what they did (`hands.Hands`); afterwards the times are spread over
a week in the database itself, which nothing but waiting for a week could do otherwise. What is going on stays so until `close`.
"""

from __future__ import annotations

import heapq
import random
import sqlite3
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import quote

from env import PATIENCE_SECONDS, POLL_SECONDS, Env
from hands import Hands
from scitq.protocol import Report

from scitq import __version__

DAY = 86400.0
GB = 10**9
HEARTBEAT_SECONDS = 5.0


@dataclass(frozen=True)
class End:
    """How some of a step's attempts end: their share, and what the worker says."""

    share: float
    stderr: str
    exit_code: int | None = 1
    signal: int | None = None
    reason: str | None = None


FULL = End(
    0.12,
    "samtools sort: failed writing to /scratch/tmp/sort.0042.bam\n[E::bgzf_flush] File write failed: No space left on device\n",
)
MEMORY = End(
    0.45,
    "spades-core: 0:12:41.002 ERROR  K-mer counting\n",
    None,
    9,
    "killed by signal 9 (SIGKILL), most likely because the machine ran out of memory",
)
CRASH = End(0.15, "*** stack smashing detected ***: terminated\n", None, 11, "killed by signal 11 (SIGSEGV)")
SLOW = End(0.1, "Iteration 4121: log-likelihood -18231.22\n", None, 15, "ran longer than its time limit of 7200 s and was ended")
FORBIDDEN = End(0.3, "", None, None, "s3://seq-archive/raw/run_118: 403 Forbidden: look at the credentials of this worker")
PYTHON = End(
    0.25, "Traceback (most recent call first):\n  File \"merge_counts.py\", line 88, in <module>\nKeyError: 'sample_id'\n", 1
)
R = End(0.2, "Error in DESeq(dds) : \n  \x1b[31mevery gene contains at least one zero\x1b[0m\nExecution halted\n", 1)
LICENCE = End(0.9, "ERROR: licence of novoalign expired on 2026-11-15\n", 3)


@dataclass(frozen=True)
class Step:
    """A command for each sample; `{s}` is the sample."""

    name: str
    command: str
    minutes: tuple[float, float]
    memory: float = 2.0  # GB at most
    needs: str | None = None
    container: str | None = None
    retry: int = 1
    ends: tuple[End, ...] = ()


@dataclass(frozen=True)
class Study:
    """A batch: its steps for each of its samples. `done` of its tasks ended, `days` ago; some of the last ones were canceled."""

    name: str
    steps: tuple[Step, ...]
    samples: int
    workers: tuple[str, ...]
    done: float = 1.0
    days: float = 0.0
    stopped: bool = False
    canceled: int = 0


QC = Step(
    "fastqc",
    "fastqc -t 2 -o $OUTPUT $INPUT/{s}_R1.fastq.gz $INPUT/{s}_R2.fastq.gz",
    (2, 6),
    0.6,
    container="biocontainers/fastqc:v0.12.1",
)
TRIM = Step(
    "trim", "fastp -i {s}_R1.fastq.gz -I {s}_R2.fastq.gz -o $OUTPUT/{s}_1.fq.gz -O $OUTPUT/{s}_2.fq.gz -j {s}.json", (4, 9), 1.1
)
BWA = Step(
    "align", "bwa-mem2 mem -t 8 $RESOURCE/GRCh38.fa {s}_1.fq.gz {s}_2.fq.gz | samtools sort -@ 4 -o $OUTPUT/{s}.bam -",
    (35, 80), 21.0, "trim", ends=(FULL,),
)  # fmt: skip
CALL = Step("call", "gatk HaplotypeCaller -R $RESOURCE/GRCh38.fa -I {s}.bam -O $OUTPUT/{s}.g.vcf.gz -ERC GVCF", (60, 150), 11.5,
            "align",             "broadinstitute/gatk:4.6.0.0", ends=(SLOW,))  # fmt: skip
STAR = Step(
    "star",
    "STAR --genomeDir $RESOURCE/star --readFilesIn {s}_1.fq.gz {s}_2.fq.gz --outFileNamePrefix $OUTPUT/{s}.",
    (12, 25),
    31.0,
)
COUNT = Step("count", "featureCounts -p -T 4 -a $RESOURCE/gencode.v46.gtf -o $OUTPUT/{s}.tsv {s}.bam", (3, 5), 1.4, "star")
SPADES = Step(
    "assemble",
    "metaspades.py -t 16 -m 120 -1 {s}_1.fq.gz -2 {s}_2.fq.gz -o $OUTPUT",
    (180, 420),
    118.0,
    retry=2,
    ends=(MEMORY, CRASH),
)
BINS = Step("bin", "metabat2 -i contigs.fasta -a depth.txt -o $OUTPUT/{s}", (15, 40), 9.0, "assemble")
KRAKEN = Step(
    "classify", "kraken2 --db $RESOURCE/k2_pluspf --paired {s}_1.fq.gz {s}_2.fq.gz --report $OUTPUT/{s}.kreport", (5, 11), 78.0
)
BRACKEN = Step(
    "abundance",
    "bracken -d $RESOURCE/k2_pluspf -i {s}.kreport -o $OUTPUT/{s}.bracken -l S",
    (0.3, 1),
    0.2,
    "classify",
    ends=(PYTHON,),
)
DESEQ = Step("contrast", "Rscript deseq2.R --counts counts.tsv --contrast {s} --out $OUTPUT/{s}.csv", (4, 12), 3.8, ends=(R,))
GUPPY = Step("basecall", "dorado basecaller sup@v5.0.0 pod5/{s} > $OUTPUT/{s}.bam", (90, 200), 14.0)
ONT = Step(
    "map",
    "minimap2 -ax map-ont -t 8 $RESOURCE/CHM13.mmi {s}.fq.gz | samtools sort -o $OUTPUT/{s}.bam",
    (20, 45),
    12.0,
    "basecall",
)
FOLD = Step("fold", "colabfold_batch --num-recycle 3 {s}.a3m $OUTPUT", (25, 70), 24.0, container="colabfold:1.5.5-cuda12")
FETCH = Step("fetch", "scitq fetch get run+fastq://{s} $OUTPUT/", (6, 18), 0.3, ends=(FORBIDDEN,))
NOVO = Step(
    "novoalign", "novoalign -d hg38.nix -f {s}_1.fq {s}_2.fq -o BAM > $OUTPUT/{s}.bam", (1, 2), 7.0, retry=0, ends=(LICENCE,)
)
PHYLO = Step("tree", "iqtree2 -s {s}.aln -m MFP -B 1000 -T 4", (30, 240), 5.0, ends=(SLOW,))
BACKUP = Step("archive", "rclone copy /data/{s} cold:lab-archive/{s} --checksum", (10, 60), 0.2, retry=3)

STUDIES = (
    Study("wgs/cohort-7/2026-47", (TRIM, BWA, CALL), 24, ("hemera", "nyx"), 0.6),
    Study("rnaseq-liver", (QC, TRIM, STAR, COUNT), 12, ("kibo1",), 0.97),
    Study("metagenome-soil-assembly", (SPADES, BINS), 12, ("bigmem",), 0.5),
    Study("kraken-gut-2026", (KRAKEN, BRACKEN), 20, ("kibo2",), 0.8),
    Study("nanopore-flowcell-PAM93185", (GUPPY, ONT), 8, ("gpu-a100",), 0.5),
    Study("alphafold-orphans", (FOLD,), 30, ("gpu-a100-2",), 0.45),
    Study("sra-import PRJEB60912", (FETCH,), 24, ("dtn",), 0.75),
    Study("contrasts-revision-2", (DESEQ,), 18, ("kibo3",), canceled=3),
    Study("novoalign-rerun", (NOVO,), 12, ("kibo3",), days=0.3),
    Study("phylogeny/fungi-ITS", (PHYLO,), 14, ("old-xeon",), 0.5, stopped=True),
    Study("archive-november", (BACKUP,), 10, ("dtn",), days=1),
    Study("wgs/cohort-6/2026-46", (TRIM, BWA, CALL), 10, ("hemera", "nyx"), days=2),
    Study("rnaseq-kidney", (QC, TRIM, STAR, COUNT), 8, ("kibo1",), days=3),
    Study("kraken-controls", (KRAKEN, BRACKEN), 6, ("kibo2",), days=3),
    Study("ont-pilot", (GUPPY, ONT), 3, ("gpu-a100",), days=4),
    Study("atac-thymus", (QC, TRIM), 8, ("kibo1",), days=4),
    Study("contrasts-revision-1", (DESEQ,), 9, ("kibo3",), days=5),
    Study("sra-import PRJNA1093", (FETCH,), 8, ("dtn",), days=6),
    Study("imputation-chr22", (Step("impute", "minimac4 ref.msav {s}.vcf.gz -o $OUTPUT/{s}.dose.vcf.gz", (8, 15), 6.0),), 9, ()),
    Study(
        "Default", (Step("hello", "echo {s} says hello from $HOSTNAME", (0.01, 0.02), 0.01, retry=0),), 3, ("kibo3",), days=6.5
    ),
)


@dataclass(frozen=True)
class Machine:
    """A worker. `silent` for so many hours; `full`: its scratch disk."""

    name: str
    concurrency: int
    cpus: int
    memory: int  # GB
    prefetch: int = 0
    gpu: str | None = None
    silent: float = 0.0
    problem: str | None = None
    draining: bool = False
    full: float = 0.4


MACHINES = (
    Machine("hemera", 8, 64, 512, 4, full=0.71),
    Machine("nyx", 8, 64, 512, 4, full=0.93),
    Machine("kibo1", 6, 32, 128, 2),
    Machine("kibo2", 2, 32, 128, 1),
    Machine("kibo3", 4, 32, 128, draining=True),
    Machine("bigmem", 2, 48, 1024, full=0.86),
    Machine("gpu-a100", 2, 32, 256, 1, "NVIDIA A100-SXM4-80GB"),
    Machine("gpu-a100-2", 4, 32, 256, 2, "NVIDIA A100-SXM4-80GB"),
    Machine(
        "dtn",
        6,
        16,
        64,
        4,
        full=0.995,
        problem="the disk of the scratch directory /scratch is full (412 MB free): make room there",
    ),
    Machine("old-xeon", 3, 12, 48, silent=5.5),
)


@dataclass
class Playing:
    """A study on its way through the API."""

    study: Study
    hands: list[Hands]
    ids: list[int]
    ended: int = 0
    steps: dict[int, Step] = field(default_factory=dict)


class Week:
    """The whole; `batches` and `workers` are the names, `running` the ids of tasks that run until `close`."""

    def __init__(self, env: Env, studies: tuple[Study, ...] = STUDIES):
        self.env, self.random, self.studies = env, random.Random(47), studies
        self.batches = [study.name for study in studies]
        self.hands = {machine.name: self._machine(machine) for machine in MACHINES}
        self.running: list[int] = []
        for study in reversed(studies):  # the oldest first
            self._play(study)
        self._mark()
        self._spread_over_a_week()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The workers say nothing any more."""
        self._over.set()
        self._thread.join()

    # --- workers ----------------------------------------------------------------------------------------------------

    def _machine(self, machine: Machine) -> Hands:
        more = {"prefetch": machine.prefetch, "cpus": machine.cpus, "memory_bytes": machine.memory * GB}
        hands = Hands(self.env, machine.name, "nothing", machine.concurrency, hostname=f"{machine.name}.lab.example", **more)
        hands.version = "1.9.2" if machine.silent else __version__
        hands.sync()
        return hands

    def _stats(self, machine: Machine) -> dict:
        """What a worker measures of itself, a little different every time."""
        busy, total = self.random.uniform(0.5, 0.95), machine.memory * GB
        disk = 4000 * GB if machine.cpus > 16 else 900 * GB
        stats = {
            "load": [machine.cpus * busy, machine.cpus * busy * 0.9, machine.cpus * 0.6], "cpus": machine.cpus,
            "cpu_percent": 100 * busy, "disks": {"/": {"total": 80 * GB, "free": 41 * GB},
                                                "/scratch": {"total": disk, "free": int(disk * (1 - machine.full))}},
            "memory": {"total": total, "available": int(total * self.random.uniform(0.2, 0.6)), "swap_total": 0, "swap_free": 0},
            "network": {"received_per_second": self.random.randint(10**4, 10**8), "sent_per_second": 10**6},
        }  # fmt: skip
        if machine.gpu:
            stats["gpus"] = [{"index": 0, "name": machine.gpu, "percent": 97, "memory_used": 61 * GB, "memory_total": 85 * GB}]
        return stats

    def _heartbeat(self, machine: Machine) -> None:
        self.hands[machine.name].sync(problem=machine.problem, stats=self._stats(machine))

    def _keep_alive(self) -> None:
        while not self._over.wait(HEARTBEAT_SECONDS):
            for machine in MACHINES:
                if not machine.silent and not self._over.is_set():
                    self._heartbeat(machine)

    def _mark(self) -> None:
        """What people and machines made of the workers."""
        for machine in MACHINES:
            self._heartbeat(machine)
            if machine.draining:
                self.env.api("PATCH", f"/workers/{self.hands[machine.name].row['id']}", {"draining": True})
        self.env.api("DELETE", "/batches/nothing")

    # --- studies ----------------------------------------------------------------------------------------------------

    def _play(self, study: Study) -> None:
        """Its tasks come about and run, until so many have ended; the others are left where they are."""
        specs = [self._spec(study, step, f"S{number:03}") for number in range(1, study.samples + 1) for step in study.steps]
        playing = Playing(study, [self.hands[name] for name in study.workers], self.env.create(*specs))
        playing.steps = dict(zip(playing.ids, study.steps * study.samples))
        if study.canceled:
            self.env.api("POST", "/tasks/cancel", {"ids": playing.ids[-study.canceled :]})
        for hands in playing.hands:
            self.env.api("PATCH", f"/workers/{hands.row['id']}", {"batch": study.name})
        deadline = time.monotonic() + PATIENCE_SECONDS
        while playing.hands and self._goes_on(playing):
            assert time.monotonic() < deadline, f"{study.name} does not come to its end"
            for hands in playing.hands:
                self._turn(playing, hands)
            time.sleep(POLL_SECONDS / 4)
        self._leave(playing)

    def _spec(self, study: Study, step: Step, sample: str) -> dict:
        steps = [known.name for known in study.steps]
        back = steps.index(step.name) - steps.index(step.needs) if step.needs in steps else 0
        spec = {
            "name": f"{step.name}:{sample}", "batch": study.name, "shell": "bash", "command": step.command.replace("{s}", sample),
            "retry": step.retry, "container": step.container, "output": f"s3://lab-results/{study.name}/{step.name}/{sample}/",
        }  # fmt: skip
        number = (int(sample[1:]) - 1) * len(steps) + steps.index(step.name)
        return spec | ({"require": [f"#{number - back}"]} if back else {})

    def _goes_on(self, playing: Playing) -> bool:
        if playing.study.done < 1:
            return playing.ended < int(playing.study.done * len(playing.ids))
        counts = self.env.api("GET", "/tasks/counts", batch=playing.study.name)["counts"]
        return any(counts.get(state) for state in ("pending", "assigned", "accepted", "running"))

    def _turn(self, playing: Playing, hands: Hands) -> None:
        """A worker takes what it is given and says at once how it ended."""
        hands.sync()
        left = int(playing.study.done * len(playing.ids)) - playing.ended if playing.study.done < 1 else len(playing.ids)
        here = dict([item for item in hands.held.items() if item[1] in playing.steps][: max(0, left)])
        if not here:
            return
        reports, output = [], []
        for execution, task in here.items():
            report, stdout, stderr = self._end(execution, task, playing.steps[task])
            reports.append(report)
            output += [(execution, stream, 0, data) for stream, data in (("stdout", stdout), ("stderr", stderr)) if data]
        hands.sync(*reports, output=output)
        playing.ended += sum(report.state == "succeeded" for report in reports)
        for execution in here:
            del hands.held[execution]

    def _end(self, execution: int, task: int, step: Step) -> tuple[Report, bytes, bytes]:
        seconds = 60 * self.random.uniform(*step.minutes)
        dice, end = self.random.random(), None
        for known in step.ends:
            dice -= known.share
            if dice < 0:
                end = known
                break
        stdout = b"" if end and not end.stderr else _stdout(step.name, task)
        stderr = end.stderr.encode() if end else _progress(step.name)
        bad = {"exit_code": end.exit_code, "signal": end.signal, "reason": end.reason} if end else {"exit_code": 0}
        report = Report(
            execution, "failed" if end else "succeeded", started_ago=seconds + 1, ended_ago=1.0, stdout_size=len(stdout),
            stderr_size=len(stderr), cpu_seconds=seconds * self.random.uniform(0.8, 7.5),
            peak_memory_bytes=int(step.memory * GB * self.random.uniform(0.6, 1)), read_bytes=3 * GB, written_bytes=GB, **bad,
        )  # fmt: skip
        return report, stdout, stderr

    def _leave(self, playing: Playing) -> None:
        """What goes on: the slots are taken, one of the tasks is suspended, one uploads, others wait for a slot."""
        if playing.study.stopped:
            self.env.api("POST", f"/batches/{quote(playing.study.name, safe='')}/stop", {"running": None})
        for hands in playing.hands if playing.study.done < 1 else ():
            self.env.until(lambda hands=hands: hands.sync() and hands.held, what=f"{hands.row['name']} has something to do")
            here, slots = sorted(hands.held), hands.row["concurrency"]
            uploading, running, accepted = here[: slots > 7], here[slots > 7 : slots], here[slots:]
            suspended = running[-1:] if slots > 3 else []
            if suspended:
                self.env.api("POST", "/tasks/signal", {"ids": [hands.held[suspended[0]]], "action": "suspend"})
            reports = [Report(e, "running", suspended=e in suspended, started_ago=1.0) for e in running]
            reports += [Report(e, "uploading", started_ago=2.0, ended_ago=1.0) for e in uploading]
            output = [(e, "stdout", 0, _stdout("run", e)) for e in running]
            hands.sync(*reports, *(Report(e, "accepted") for e in accepted), output=output)
            self.running += [hands.held[e] for e in running]

    # --- times ------------------------------------------------------------------------------------------------------

    def _spread_over_a_week(self) -> None:
        """With the server stopped: executions follow each other in the slots of their workers; a batch ends as its study says."""
        server = self.env.processes[0]
        server.stop()
        database = sqlite3.connect(server.data / "scitq.db")
        with database:
            slots = {hands.row["id"]: hands.row["concurrency"] for hands in self.hands.values()}
            for study in self.studies:
                self._spread(database, study, slots)
            for machine in MACHINES:
                if machine.silent:
                    row = (time.time() - machine.silent * 3600, self.hands[machine.name].row["id"])
                    database.execute("UPDATE worker SET contact_at = ?, offline = 1 WHERE id = ?", row)
            database.execute("UPDATE worker SET created_at = created_at - ?", (12 * DAY,))
        database.close()
        server.restart()

    def _spread(self, database: sqlite3.Connection, study: Study, slots: dict[int, int]) -> None:
        (batch,) = database.execute("SELECT id FROM batch WHERE name = ?", (study.name,)).fetchone()
        rows = database.execute(
            "SELECT id, worker_id, ended_at - started_at FROM execution WHERE batch_id = ? AND finished_at > 0 ORDER BY id",
            (batch,),
        ).fetchall()  # fmt: skip
        free = {worker: [0.0] * slots[worker] for _, worker, _ in rows}
        spans = {}
        for execution, worker, seconds in rows:
            start = heapq.heappop(free[worker])
            spans[execution] = (start, start + (seconds or 5.0))
            heapq.heappush(free[worker], start + (seconds or 5.0) + self.random.uniform(1, 30))
        whole = max((end for _, end in spans.values()), default=3600.0)
        begin = time.time() - study.days * DAY - whole - self.random.uniform(2, 90)
        database.executemany(
            "UPDATE execution SET assigned_at = ?, accepted_at = ?, started_at = ?, ended_at = ?, finished_at = ? WHERE id = ?",
            [(begin + a - 3, begin + a - 2, begin + a, begin + b, begin + b + 0.5, e) for e, (a, b) in spans.items()],
        )
        running = database.execute(
            "SELECT id FROM execution WHERE batch_id = ? AND started_at IS NOT NULL AND finished_at IS NULL", (batch,)
        )
        for (execution,) in running.fetchall():
            started = time.time() - self.random.uniform(30, 1500)
            times = (started - 4, started - 3, started, execution)
            database.execute("UPDATE execution SET assigned_at = ?, accepted_at = ?, started_at = ? WHERE id = ?", times)
        database.execute("UPDATE task SET created_at = ?, modified_at = ? WHERE batch_id = ?", (begin - 60, begin - 60, batch))
        database.execute("UPDATE batch SET created_at = ? WHERE id = ?", (begin - 60, batch))
        database.execute(
            "UPDATE task SET state_at = COALESCE((SELECT COALESCE(finished_at, started_at, assigned_at) FROM execution "
            "WHERE execution.id = task.execution_id), created_at) WHERE batch_id = ?", (batch,),
        )  # fmt: skip


def _stdout(step: str, number: int) -> bytes:
    lines = [f"\x1b[1m[{step}]\x1b[0m {step} {number}: reading", "\x1b[36minfo\x1b[0m 8 threads, 4.2 GB of reads"]
    lines += [f"\x1b[32m{percent:3} %\x1b[0m {percent * 412_331:,} reads" for percent in range(0, 101, 10)]
    return ("\n".join([*lines, "\x1b[33mwarning\x1b[0m: 3 reads had no mate", "done"]) + "\n").encode()


def _progress(step: str) -> bytes:
    return "".join(f"\r{step}: {percent} %" for percent in range(0, 101, 25)).encode() + b"\n"
