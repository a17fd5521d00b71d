"""What a real SimpleTuner leaves of a job: marks, a run to its end, one that fails, and the search for them; see `canary`.

Four kinds of marks: `credential` in every credential of the job's files and in every token of people; `own` in everything
that a person has written into the job's files (prompts, captions, paths, names); `data` in the names of the images and in
the captions that lie beside them; `name` in what the job, its owner and their organisation are called. The worker's token is
looked for too, as `worker`. PLACES says where they are looked for, which of them may be there, and the sentence of the
documents that says so. What a later SimpleTuner writes somewhere else is found as well: the home folder and the one for
temporary files are the run's own, and whatever is new in those of the machine is looked through.
"""

import json
import os
import pathlib
import pwd
import subprocess
import sys
import sysconfig
import time
import urllib.request

# Nothing of it is to lie in the checkout.
sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from bucket import Bucket  # noqa: E402
from marks import Mark, Search  # noqa: E402

PROGRAM, RECIPE, WORK = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
PATIENCE = 900.0
# Enough to be recorded, with a checkpoint and a validation between.
STEPS = 60

# Which marks may be where, and who says so. Nothing else may be anywhere.
PLACES = {
    # While a job runs.
    "running: state": {"name"},         # "people and organisations ... the state, and with it log and snapshots" (docs/operating.md)
    "running: staging": {"own", "data"},  # "a job's configuration files | staging area | the job is over" (docs/operating.md)
    "running: tables": set(),           # "Benchmark records hold the fields of the privacy policy and nothing else" (README)
    "running: worker": {"worker"},      # "`credential.json` (its secret, readable by its user only)" (docs/operating.md)
    "running: attempt": {"own", "data"},  # "In plain on the disk lie ... on a worker `attempts/` and `outputs/`" (docs/operating.md)
    "running: results": {"own", "data"},  # the same sentence
    "running: trainer": {"credential"},  # "credentials ... the leader's memory, then the trainer's environment" (docs/operating.md)
    "running: others": set(),           # "... nowhere else" (the same line); a guard has its trainer's environment
    # When its attempt is over.
    "over: state": {"name"},            # as above, until 90 days after its end
    "over: staging": {"data"},          # of `lines/`: "without secrets and without what the job's files say in a person's words"
    "over: tables": set(),              # as above; job, worker, owner and organisation have no number in them either
    "over: worker": {"worker"},         # as above, and nothing else: "An attempt's folder goes when the cluster knows its end" (docs/operating.md)
    "over: results": {"own", "data"},   # "a job's results | `outputs/` of its workers ... | 72 hours after its end"
    "over: lines": {"data"},            # "so does what SimpleTuner may print of the data themselves, such as a caption"
    "over: answers": {"name"},          # who asks may know what people and jobs are called, and nothing else is known of them
    "over: metrics": set(),             # "it names no job" (docs/operating.md, Ports)
    "over: logs": set(),                # what server and worker log of themselves, all of it
    "over: backup": {"name"},           # "The state is jobs, workers and tokens" (docs/operating.md)
    "over: elsewhere": set(),           # home folders and those for temporary files: nobody says that anything is there
}

CREDENTIAL, OWN, DATA, NAME = (Mark(kind) for kind in ("credential", "own", "data", "name"))
HOME, TEMPORARY, USER, LOGS = (WORK / name for name in ("home", "tmp", "user", "logs"))
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("STEPCAST_", "HF_", "AWS_", "XDG_"))},
    "HOME": str(HOME), "TMPDIR": str(TEMPORARY), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "WANDB_MODE": "disabled",
    "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1",
}
LOGGED = "debug,stepcast=trace,stepcast_api=trace,stepcast_cluster=trace,stepcast_worker=trace,hyper=trace,h2=debug,tonic=trace"
SEARCH = Search()


def say(text):
    print(f"== {time.strftime('%H:%M:%S')} {text}", flush=True)


def until(what, holds, patience=60.0, every=0.3):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if value := holds():
            return value
        time.sleep(every)
    raise AssertionError(f"{what} did not come about")


class Stepcast:
    """A server that asks everybody for a token, and a worker of it, as processes."""

    def __init__(self):
        self.tokens = WORK / "tokens"
        self.tokens.mkdir()
        (self.tokens / "own").write_text(CREDENTIAL.of("own-access-token"))
        self.server = self.worker = None

    def start(self):
        words = ["server", "--data", str(WORK / "data"), "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0",
                 "--access-token-file", str(self.tokens / "own")]
        self.server = self.process("server", words)
        said = [self.server.stdout.readline().decode().split()[-1] for _ in range(3)]
        self.url, self.metrics = said[0], said[2]
        # People and credentials are of the newest format of the log, which a new one reaches in a moment.
        until("the log's newest format", lambda: json.loads(self.call("cluster", "status", "--json"))["log_format"] >= 3)
        self.call("org", "create", NAME.name("org"))
        self.call("user", "create", NAME.name("ana"), "--org", NAME.name("org"), "--out", str(self.tokens / "ana"))
        self.call("workers", "token", "create", "cpu-host", "--out", str(self.tokens / "worker"))
        for kind, name in (("credential", "ana"), ("worker", "worker")):
            SEARCH.look_for(kind, (self.tokens / name).read_text().strip())
        train = f"{sysconfig.get_path('purelib')}/simpletuner/train.py"
        words = ["worker", "--server", self.url, "--join-token-file", str(self.tokens / "worker"), "--state", str(WORK / "worker"),
                 "--cpu", "--price", "0.10", "--metrics-listen", "127.0.0.1:0", "--simpletuner-command", f"{sys.executable} {train}"]
        self.worker = self.process("worker", words)
        until("the worker", lambda: any(one["attached"] for one in json.loads(self.call("workers", "--json"))["workers"]))

    def process(self, name, words):
        log = open(LOGS / f"{name}.log", "ab")
        out = subprocess.PIPE if name == "server" else log
        return subprocess.Popen([PROGRAM, *words], env={**ENVIRONMENT, "RUST_LOG": LOGGED}, stdout=out, stderr=log)

    def call(self, *words, token="own", cwd=WORK, code=0):
        environment = {**ENVIRONMENT, "STEPCAST_SERVER": self.url, "STEPCAST_ACCESS_TOKEN_FILE": str(self.tokens / token)}
        done = subprocess.run([PROGRAM, *words], env=environment, cwd=cwd, capture_output=True, text=True, timeout=120)
        if done.returncode != code:
            raise AssertionError(f"{words}: {done.stderr}")
        return done.stdout

    def get(self, path, token="own"):
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {(self.tokens / token).read_text().strip()}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def end(self, name):
        process = getattr(self, name)
        if process and process.poll() is None:
            process.terminate()
            try:
                process.wait(150)
            except subprocess.TimeoutExpired:
                process.kill()


def write_job(name, bucket):
    """A job's files with marks in every field that a person fills in. Half of its images and its text embeddings lie in a bucket."""
    folder = USER / OWN.name("config") / name
    folder.mkdir(parents=True)
    config = json.loads((RECIPE / "config/tiny/config.json").read_text())
    model = str(USER / OWN.name("models") / "tiny-sdxl")
    config.update({
        "pretrained_model_name_or_path": model, "pretrained_vae_model_name_or_path": model,
        "output_dir": f"/home/{OWN.name('ana')}/out", "cache_dir": f"/home/{OWN.name('ana')}/cache",
        "data_backend_config": str(folder / "multidatabackend.json"), "user_prompt_library": str(folder / "prompts.json"),
        "webhook_config": [{"webhook_type": "raw", "callback_url": f"https://{OWN.name('ana')}:{CREDENTIAL.word}@example.org/",
                            "auth_token": CREDENTIAL.of("webhook")}],
        "hub_token": f"hf_{CREDENTIAL.word}hub", "wandb_api_key": CREDENTIAL.of("wandb"),
        "publishing_config": [{"provider": "s3", "bucket": OWN.name("published"), "base_path": OWN.name("prefix"),
                               "endpoint_url": bucket.address, "access_key": CREDENTIAL.name("publisher-id"),
                               "secret_key": CREDENTIAL.of("publisher"), "region": "us-east-1"}],
        "validation_prompt": f"a portrait of {OWN.of('prompt')} in red", "validation_negative_prompt": OWN.of("negative"),
        "hub_model_id": f"ana/{OWN.name('model')}", "tracker_project_name": OWN.name("project"), "tracker_run_name": OWN.name("run"),
        "instance_prompt": f"the face of {OWN.of('instance')}", "report_to": "simpletuner",
        "mixed_precision": "bf16", "max_train_steps": STEPS, "checkpoint_step_interval": STEPS // 2, "disable_benchmark": True,
        "validation_step_interval": STEPS // 2, "validation_prompt_library": False, "validation_num_inference_steps": 3,
    })
    far = {"type": "aws", "aws_endpoint_url": bucket.address, "aws_region_name": "us-east-1",
           "aws_access_key_id": CREDENTIAL.name("key-id"), "aws_secret_access_key": CREDENTIAL.of("key"),
           "aws_session_token": CREDENTIAL.of("session")}
    embeds = OWN.name("refused" if name == "fails" else "embeds")
    images = {"dataset_type": "image", "crop": True, "crop_style": "center", "crop_aspect": "square", "resolution": 64,
              "resolution_type": "pixel", "minimum_image_size": 0, "repeats": 0, "metadata_backend": "discovery"}
    loader = [
        {"id": OWN.name("photos"), **images, "type": "local", "instance_data_dir": str(USER / OWN.name("photos")),
         "caption_strategy": "textfile", "cache_dir_vae": f"/home/{OWN.name('ana')}/vae"},
        {"id": OWN.name("faces"), **images, **far, "aws_bucket_name": OWN.name("faces"), "caption_strategy": "instanceprompt",
         "instance_prompt": f"smiling {OWN.of('caption')}", "cache_dir_vae": f"/home/{OWN.name('ana')}/vae-faces"},
        {"id": OWN.name("words"), "dataset_type": "text_embeds", "default": True, **far, "aws_bucket_name": embeds,
         "aws_data_prefix": OWN.name("prefix")},
    ]
    for file, content in (("config.json", config), ("multidatabackend.json", loader), ("prompts.json", {"hat": OWN.of("library")})):
        (folder / file).write_text(json.dumps(content))
    return folder


def make_data(bucket):
    """A tiny model and a few images, in folders that a person has named, with captions that a person has written. Half of them
    go into a bucket."""
    with open(WORK / "model.log", "wb") as log:
        model = USER / OWN.name("models") / "tiny-sdxl"
        subprocess.run([sys.executable, RECIPE / "make_tiny_sdxl.py", model], check=True, stdout=log, stderr=log, env=ENVIRONMENT)
        for name in ("photos", "faces"):
            folder = USER / OWN.name(name)
            subprocess.run([sys.executable, RECIPE / "make_dataset.py", folder, "4", "64"], check=True, stdout=log, env=ENVIRONMENT)
            for file in list(folder.iterdir()):
                if file.suffix == ".txt":
                    file.write_text(f"{DATA.of('caption')} {file.read_text()}")
                file = file.rename(folder / f"{DATA.name('image')}-{file.name}")
                if name == "faces":
                    bucket.objects[f"{OWN.name('faces')}/{file.name}"] = file.read_bytes()
                    file.unlink()


def below(process):
    """The processes that this one has started, and those that they have."""
    parents = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            pass
    found = [process.pid]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def look_at_processes(stepcast):
    """No command line holds a mark, and credentials are in the environment of the trainer and of its guard alone."""
    found = set()
    for process in (stepcast.server, stepcast.worker):
        for pid in below(process):
            try:
                words, environment = (pathlib.Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
            except (FileNotFoundError, ProcessLookupError):
                continue
            of_trainer = pid != process.pid and process is stepcast.worker
            place = "running: trainer" if of_trainer else "running: others"
            SEARCH.bytes_of(f"the command line of {words[:60]}", words, PLACES["running: others"])
            found |= SEARCH.bytes_of(f"the environment of {words[:60]}", environment, PLACES[place])
    return found


def look_while_running(stepcast):
    found = {"processes": look_at_processes(stepcast)}
    data, worker = WORK / "data", WORK / "worker"
    found["state"] = SEARCH.folder(data, PLACES["running: state"], {data / "staging", data / "records"})
    found["staging"] = SEARCH.folder(data / "staging", PLACES["running: staging"])
    SEARCH.folder(data / "records", PLACES["running: tables"])
    SEARCH.folder(worker, PLACES["running: worker"], {worker / "attempts", worker / "outputs"})
    found["attempt"] = SEARCH.folder(worker / "attempts", PLACES["running: attempt"])
    SEARCH.folder(worker / "outputs", PLACES["running: results"])
    return found


def look_afterwards(stepcast, jobs, start):
    """Everything but what the processes themselves hold; the last time also when they have ended."""
    data, worker = WORK / "data", WORK / "worker"
    SEARCH.folder(data, PLACES["over: state"], {data / "staging", data / "records"})
    SEARCH.folder(data / "staging", PLACES["over: staging"])
    SEARCH.folder(data / "records", PLACES["over: tables"])
    SEARCH.folder(worker, PLACES["over: worker"], {worker / "outputs"})
    found = SEARCH.folder(worker / "outputs", PLACES["over: results"])
    SEARCH.folder(LOGS, PLACES["over: logs"])
    for folder in (HOME, TEMPORARY):
        SEARCH.folder(folder, PLACES["over: elsewhere"])
    real = pathlib.Path(pwd.getpwuid(os.getuid()).pw_dir)
    for folder in (pathlib.Path("/tmp"), pathlib.Path("/var/tmp"), pathlib.Path("/dev/shm"), real):
        # The cache folder is where this program is built.
        SEARCH.folder(folder, PLACES["over: elsewhere"], {WORK, real / ".cache/stepcast"}, start)
    if stepcast.server.poll() is not None:
        return found
    for job in jobs:
        lines = stepcast.get(f"/v1/jobs/{job}/logs", "ana")["logs"]
        assert "[private]" in lines and "[data set " in lines, f"the lines of {job} are not those of a run: {lines[-2000:]}"
        SEARCH.text(f"the lines of {job}", lines, PLACES["over: lines"])
        for answer in (["job", "show", job, "--json"], ["job", "show", job]):
            SEARCH.text(f"the answer to {answer}", stepcast.call(*answer, token="ana"), PLACES["over: answers"])
        # Its events from the first one on.
        watched = subprocess.run([PROGRAM, "job", "watch", job, "--json", "--server", stepcast.url, "--access-token-file",
                                  str(stepcast.tokens / "ana")], env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
        SEARCH.text(f"the events of {job}", watched.stdout + watched.stderr, PLACES["over: answers"])
    for path, token in (("/v1/jobs", "own"), ("/v1/users", "own"), ("/v1/orgs", "own"), ("/v1/workers", "own"), ("/v1/audit", "own"),
                        ("/v1/jobs", "ana"), ("/v1/tokens", "ana"), ("/v1/account/me", "ana")):
        SEARCH.text(f"the answer to {path}", json.dumps(stepcast.get(path, token)), PLACES["over: answers"])
    with urllib.request.urlopen(stepcast.metrics, timeout=60) as answer:
        SEARCH.bytes_of("metrics", answer.read(), PLACES["over: metrics"])
    return found


def look_at_tables(numbers):
    """What the rows hold, unpacked: neither a mark nor who or what they are of."""
    import pyarrow.parquet

    files = list((WORK / "data/records").rglob("*.parquet"))
    rows = 0
    for file in files:
        table = pyarrow.parquet.read_table(file, partitioning=None)
        rows += table.num_rows
        text = json.dumps([table.to_pylist(), str(table.schema), str(pyarrow.parquet.read_metadata(file).to_dict())], default=str)
        SEARCH.text(f"the rows of {file}", text, PLACES["over: tables"])
        for number in numbers:
            assert number not in text, f"{file} names {number}"
    assert rows, "no table holds a row"
    return rows


def run(stepcast, folder, wanted):
    """Submits, looks all the while, and waits until the attempt has left its worker; the job's id."""
    submitted = stepcast.call("submit", str(folder), "--on", "cpu", "--yes", "--retries", "0", "--samples", "4",
                              "--name", NAME.name(folder.name), "--json", token="ana")
    job = json.loads(submitted)["job"]["job"]
    seen = {}

    def over():
        # What it has saved, too, lies where it is looked for while it runs.
        for place, kinds in look_while_running(stepcast).items():
            seen.setdefault(place, set()).update(kinds)
        state = json.loads(stepcast.call("job", "show", job, "--json", token="ana"))["state"]
        return state if state in ("SUCCEEDED", "FAILED", "CANCELLED") else None

    state = until(f"the end of {folder.name}", over, PATIENCE, 1.0)
    if state != wanted:
        raise AssertionError(f"{job} is {state}: {stepcast.call('job', 'logs', job)[-6000:]}")
    # The marks were there to be found: what is found nowhere else proves something.
    wanted_kinds = {"processes": {"credential"}, "staging": {"own"}, "attempt": {"own"}, "state": {"name"}}
    for place, kinds in wanted_kinds.items():
        assert kinds <= seen[place], f"{kinds} was not seen in {place}, only {seen[place]}"
    until("the end of the attempt's folder", lambda: not list((WORK / "worker/attempts").iterdir()))
    return job


def main():
    for folder in (HOME, TEMPORARY, USER, LOGS):
        folder.mkdir()
    for mark in (CREDENTIAL, OWN, DATA, NAME):
        SEARCH.look_for(mark.kind, mark.word)
    start = time.time() - 1
    bucket = Bucket()
    say("a tiny model with random weights and eight images")
    make_data(bucket)
    stepcast = Stepcast()
    try:
        say("server and worker")
        stepcast.start()
        say("a run to its end, with images and embeddings in buckets and its results published to another")
        good = run(stepcast, write_job("runs", bucket), "SUCCEEDED")
        until("the record", lambda: list((WORK / "data/records/training_steps").rglob("*.parquet")))
        asked = "".join(headers for _, _, headers in bucket.asked)
        assert CREDENTIAL.name("key-id") in asked and CREDENTIAL.name("publisher-id") in asked, "no credential was used"
        found = look_afterwards(stepcast, [good], start)
        say(f"its results hold {', '.join(sorted(found)) or 'no mark'}")
        say("a run that fails: its bucket refuses it, and says so with all that it was asked")
        bad = run(stepcast, write_job("fails", bucket), "FAILED")
        lines = stepcast.get(f"/v1/jobs/{bad}/logs", "ana")["logs"]
        assert "is not for you" in lines and "[redacted]" in lines, f"it has failed otherwise: {lines[-2000:]}"
        look_afterwards(stepcast, [good, bad], start)
        backup = WORK / "backup.snapshot"
        stepcast.call("cluster", "backup", str(backup))
        SEARCH.file(backup, PLACES["over: backup"])
        workers = json.loads(stepcast.call("workers", "--json"))["workers"]
        users = stepcast.get("/v1/users")["items"]
        say("server and worker end")
        stepcast.end("worker")
        stepcast.end("server")
        look_afterwards(stepcast, [good, bad], start)
        # A number of one digit would be found anywhere.
        ids = [good, bad, "cpu-host", *(str(one["worker"]) for one in workers), *(str(one[key]) for one in users for key in ("id", "org_id"))]
        rows = look_at_tables([number for number in ids if len(number) > 3])
    finally:
        stepcast.end("worker")
        stepcast.end("server")
        for (kind, place), near in SEARCH.leaks.items():
            print(f"LEAK: {kind} in {place}: …{near}…", file=sys.stderr)
    say(f"{SEARCH.places} places, {SEARCH.bytes >> 20} MiB, {rows} rows: {len(SEARCH.leaks)} leaks")
    return 1 if SEARCH.leaks else 0


if __name__ == "__main__":
    sys.exit(main())
