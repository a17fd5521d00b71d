"""Drives SimpleTuner's own cloud client against a server and a worker that it starts; see `client` beside it."""

import asyncio
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time

PROGRAM, RECIPE, WORK = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
TOKEN = "a-server-s-own-token-0123456789"
ORG = "acme"
OFFLINE = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HOME": str(WORK / "hf"), "WANDB_MODE": "disabled",
    "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "",
}
# Loading SimpleTuner alone takes a minute on a slow host.
PATIENCE = 600.0


def say(text):
    print(f"== {time.strftime('%H:%M:%S')} {text}", flush=True)


def check(holds, what):
    if not holds:
        raise AssertionError(what)
    say(f"ok: {what}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Stepcast:
    """A server and a worker of it, as processes."""

    def __init__(self):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token_file = WORK / "access.token"
        self.token_file.write_text(TOKEN)
        self.server = self.worker = None

    def environment(self):
        return {**os.environ, **OFFLINE, "STEPCAST_SERVER": self.url, "STEPCAST_ACCESS_TOKEN_FILE": str(self.token_file)}

    def command(self, *words):
        done = subprocess.run([PROGRAM, *words], env=self.environment(), capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise AssertionError(f"{words}: {done.stderr}")
        return done.stdout

    def start_server(self):
        log = open(WORK / "server.log", "ab")
        words = [PROGRAM, "server", "--data", str(WORK / "data"), "--listen", f"127.0.0.1:{self.port}"]
        self.server = subprocess.Popen(words, env=self.environment(), stdout=subprocess.PIPE, stderr=log)
        self.server.stdout.readline()
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                return self.command("cluster", "status")
            except AssertionError:
                time.sleep(0.2)
        raise AssertionError("the server does not answer")

    def kill_server(self):
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()

    def let_in(self):
        """An organisation and somebody in it; their long-lived token."""
        until = time.monotonic() + 60
        while True:
            try:
                self.command("org", "create", ORG)
                break
            except AssertionError:
                # Until every node has raised the log's format, which takes a moment at the first start.
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)
        return json.loads(self.command("user", "create", "ana", "--role", "member", "--json"))["secret"]

    def start_worker(self):
        self.command("workers", "token", "create", "cpu-host", "--out", str(WORK / "worker.token"))
        site = sysconfig.get_path("purelib")
        words = [PROGRAM, "worker", "--server", self.url, "--join-token-file", str(WORK / "worker.token"),
                 "--state", str(WORK / "worker"), "--cpu", "--price", "0.10",
                 "--simpletuner-command", f"{sys.executable} {site}/simpletuner/train.py"]
        log = open(WORK / "worker.log", "ab")
        self.worker = subprocess.Popen(words, env=self.environment(), stdout=log, stderr=log)

    def stop(self):
        for process in (self.worker, self.server):
            if process and process.poll() is None:
                process.terminate()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()


def settings(name):
    """A configuration of the recipe, as SimpleTuner's client sends it."""
    folder = RECIPE / "config" / name
    read = lambda file: json.loads((folder / file).read_text().replace("@WORK@", str(WORK)))
    config = read("config.json")
    # The recipe's runs share one output folder, and this client may name another server's.
    config = {f"--{key}": value for key, value in config.items() if key != "webhook_config"}
    config["--stepcast_on"] = "cpu"
    return config, read("multidatabackend.json")


class Follower:
    """Asks for a job's status and lines again and again, as SimpleTuner's command line does."""

    def __init__(self, client, job):
        self.client, self.job = client, job
        self.statuses, self.logs, self.growths, self.away = [], "", 0, 0

    async def look(self):
        from simpletuner.simpletuner_sdk.server.services.cloud.exceptions import ProviderUnavailableError
        try:
            info = await self.client.get_job_status(self.job)
            logs = await self.client.get_job_logs(self.job)
        except ProviderUnavailableError:
            self.away += 1
            return None
        if not self.statuses or self.statuses[-1] != info.status.value:
            self.statuses.append(info.status.value)
            say(f"{self.job} is {info.status.value}")
        if not logs.startswith(self.logs):
            raise AssertionError("a later answer does not begin with an earlier one")
        self.growths += len(logs) > len(self.logs)
        self.logs = logs
        return info

    async def until(self, holds, what):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            info = await self.look()
            if info and holds(info):
                return info
            if info and info.status.value in ("failed",) and "failed" not in what:
                raise AssertionError(f"{self.job} failed: {info.error_message}\n{self.logs[-3000:]}")
            await asyncio.sleep(0.5)
        raise AssertionError(f"{what} did not come about; {self.statuses}")


async def tokens(client, store):
    """What does not let anybody in, and what does."""
    from simpletuner.simpletuner_sdk.server.services.cloud.exceptions import InvalidTokenError
    from simpletuner.simpletuner_sdk.server.services.cloud.secrets import get_secrets_manager

    me = await client.validate_credentials()
    check(me.get("valid") is True and me.get("org_role") == "member", f"the credentials are valid: {me}")
    config = await store.get("simpletuner_io")
    good = config["access_token"]
    over = {"access_token_expires_at": "2020-01-01T00:00:00+00:00"}
    await store.update("simpletuner_io", over)
    await client.list_jobs()
    renewed = (await store.get("simpletuner_io"))["access_token"]
    check(renewed != good, "a token that is over is exchanged anew")
    await store.update("simpletuner_io", {"access_token": renewed[:-4] + "AAAA"})
    await client.list_jobs()
    check((await store.get("simpletuner_io"))["access_token"] != renewed[:-4] + "AAAA", "a changed token is refused and replaced")
    secrets, real = get_secrets_manager(), os.environ["SIMPLETUNER_IO_REFRESH_TOKEN"]
    for wrong, org in (("wrong-token-0123456789", ORG), (real, "another-organisation")):
        os.environ["SIMPLETUNER_IO_REFRESH_TOKEN"] = wrong
        getattr(secrets, "clear_cache", lambda: None)()
        await store.update("simpletuner_io", {"org_id": org, "access_token": None})
        try:
            await client.list_jobs()
            refused = False
        except InvalidTokenError:
            refused = True
        check(refused, f"{'another organisation' if org != ORG else 'a wrong refresh token'} is refused")
    os.environ["SIMPLETUNER_IO_REFRESH_TOKEN"] = real
    getattr(secrets, "clear_cache", lambda: None)()
    await store.update("simpletuner_io", {"org_id": ORG, "access_token": None})


async def runs(client, stepcast):
    """A run to its end, one that is cancelled, and one during which the server is killed."""
    from simpletuner.simpletuner_sdk.server.services.cloud.exceptions import JobNotFoundError

    submitted = await client.run_job(*settings("tiny"))
    check(submitted.status.value == "queued", f"submitted: {submitted.job_id} {submitted.metadata}")
    follower = Follower(client, submitted.job_id)
    done = await follower.until(lambda info: info.status.value == "completed", "the end")
    order = [status for status in follower.statuses if status in ("queued", "running", "completed")]
    check(order[-2:] == ["running", "completed"], f"statuses {follower.statuses}")
    check(follower.growths >= 3, f"the lines grew {follower.growths} times while it ran")
    await follower.until(lambda _: "[stepcast] step" in follower.logs, "how far it was")
    check(done.started_at and done.completed_at, "it says when it ran")
    listed = await client.list_jobs()
    check(submitted.job_id in [job.job_id for job in listed], "the list has it")

    second = (await client.run_job(*settings("long"))).job_id
    follower = Follower(client, second)
    await follower.until(lambda info: info.status.value == "running", "running")
    check(await client.cancel_job(second), "the second job is cancelled")
    await follower.until(lambda info: info.status.value == "cancelled", "the cancellation")
    check(await client.cancel_job(submitted.job_id) is False, "a job that is over cannot be cancelled")

    third = (await client.run_job(*settings("long"))).job_id
    follower = Follower(client, third)
    await follower.until(lambda _: "[stepcast] step" in follower.logs, "its first steps")
    await follower.until(lambda _: " left\n" in follower.logs, "what is left")
    say("the server is killed")
    stepcast.kill_server()
    await follower.look()
    stepcast.start_server()
    before = len(follower.logs)
    await follower.until(lambda info: len(follower.logs) > before and info.status.value == "running", "lines after the restart")
    check(follower.away > 0, "the client saw that the server was away, and goes on")
    check("another attempt" not in follower.logs, "the run went on under the server's restart")
    check(await client.cancel_job(third), "the third job is cancelled")
    await follower.until(lambda info: info.status.value == "cancelled", "its cancellation")
    try:
        await client.get_job_status("jzzzzz")
        found = True
    except JobNotFoundError:
        found = False
    check(not found, "a job that is not there is not found")


async def page(client):
    """SimpleTuner's own web server submits a job through its own API."""
    import httpx

    port = free_port()
    log = open(WORK / "page.log", "ab")
    command = [str(pathlib.Path(sys.executable).parent / "simpletuner"), "server", "--port", str(port), "--host", "127.0.0.1", "--mode", "trainer"]
    server = subprocess.Popen(command, env={**os.environ, **OFFLINE}, stdout=log, stderr=log, cwd=WORK, start_new_session=True)
    base = f"http://127.0.0.1:{port}/api/cloud"
    try:
        async with httpx.AsyncClient(timeout=60.0, trust_env=False) as http:
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    valid = await http.get(f"{base}/providers/simpletuner_io/validate")
                    break
                except httpx.HTTPError:
                    if time.monotonic() > end or server.poll() is not None:
                        raise
                    await asyncio.sleep(1)
            check(valid.status_code == 200 and valid.json().get("valid") is True, f"the page's server validates: {valid.text[:200]}")
            config, _ = settings("tiny")
            # Its server would upload local images to another service, so this one names images of the hub, which are not
            # there: it is taken, and cancelled at once.
            loader = [
                {"id": "hub", "type": "huggingface", "dataset_type": "image", "dataset_name": "someone/images", "resolution": 64, "resolution_type": "pixel"},
                {"id": "text", "type": "local", "dataset_type": "text_embeds", "default": True, "cache_dir": str(WORK / "text")},
            ]
            answer = await http.post(f"{base}/jobs/submit", params={"provider": "simpletuner_io"}, json={"config": config, "dataloader_config": loader})
            told = answer.json()
            check(answer.status_code == 200 and told.get("success"), f"the page submitted {told.get('job_id')}: {answer.text[:300]}")
            info = await client.get_job_status(told["job_id"])
            check(info.status.value in ("queued", "running"), f"Stepcast has that job: {info.status.value}")
            check(await client.cancel_job(told["job_id"]), "and it is cancelled")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


async def all_of_it(stepcast):
    from simpletuner.simpletuner_sdk.server.services.cloud.simpletuner_io_client import SimpleTunerIOClient
    from simpletuner.simpletuner_sdk.server.services.cloud.storage.provider_config_store import ProviderConfigStore

    store = ProviderConfigStore()
    await store.update("simpletuner_io", {"org_id": ORG, "max_runtime_minutes": 30})
    client = SimpleTunerIOClient()
    await tokens(client, store)
    await runs(client, stepcast)
    await page(client)


def main():
    os.environ.update(OFFLINE)
    os.environ["HOME"] = str(WORK / "home")
    (WORK / "home").mkdir()
    subprocess.run([sys.executable, RECIPE / "make_tiny_sdxl.py", WORK / "tiny-sdxl"], check=True, stdout=open(WORK / "model.log", "wb"), stderr=subprocess.STDOUT)
    subprocess.run([sys.executable, RECIPE / "make_dataset.py", WORK / "images", "8", "64"], check=True)
    stepcast = Stepcast()
    try:
        stepcast.start_server()
        token = stepcast.let_in()
        stepcast.start_worker()
        os.environ["SIMPLETUNER_IO_API_BASE"] = stepcast.url
        os.environ["SIMPLETUNER_IO_REFRESH_TOKEN"] = token
        asyncio.run(all_of_it(stepcast))
        say("all of it happened")
    finally:
        stepcast.stop()
        shutil.rmtree(WORK / "hf", ignore_errors=True)


main()
