"""Who may call, and how much: over HTTP, with keys and quotas in a real state store."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI, AuthenticationError, PermissionDeniedError, RateLimitError

from salver.clock import MonotonicClock
from salver.contract import Action, Cause, Decision, Outcome, Scope, StateAway, Tenant, WithoutState
from salver.errors import StateUnavailable
from salver.gateway import Limits, Served, StoreThreads, Tenancy, create_app, listen, serve
from salver.gateway.tenancy.key_ring import REFRESH_SECONDS
from salver.models import ChatTemplate, Tokenizer
from salver.state import (
    Database,
    DecisionLog,
    KeySnapshot,
    KeyStore,
    QuotaStore,
    find_decisions,
    sqlite_url,
)
from salver.testing import FakeBackend, ManualClock
from salver.upstream import StaticAnswer

CLOSED = StateAway()
OPEN = StateAway(
    authentication=WithoutState.FAIL_OPEN,
    requests_per_minute=WithoutState.FAIL_OPEN,
    tokens_per_minute=WithoutState.FAIL_OPEN,
)
TENANTS = (
    Tenant(name="search"),
    Tenant(name="labs", tokens_per_minute=200, max_in_flight=2),
    Tenant(name="slow", requests_per_minute=2),
)
PROMPT = {"model": "tiny", "prompt": [1, 2, 3, 4, 5], "max_tokens": 15}  # at most 20 tokens


class Gateway:
    """One gateway over the store: its app, its backend and its log of decisions."""

    def __init__(
        self, app: FastAPI, backend: FakeBackend, database: Database, log: DecisionLog
    ) -> None:
        self.app, self.backend, self.database, self.log = app, backend, database, log
        self.keys = KeyStore(database)

    def client(self, key: str = "") -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://salver", headers=headers
        )

    def key(self, tenant: str, *scopes: Scope) -> str:
        return self.keys.create(tenant, frozenset(scopes or {Scope.INFERENCE}))[0]


Begin = Callable[..., Gateway]


@pytest.fixture
def begin(limits: Limits, tokenizer: Tokenizer, tmp_path: Path) -> Iterator[Begin]:
    """Begins gateways over a store; ends their threads and connections afterwards."""
    ends: list[Callable[[], None]] = []

    def one(url: str, away: StateAway = CLOSED, clock: ManualClock | None = None) -> Gateway:
        database = Database(url)
        threads = StoreThreads(database.threads)
        ends.extend((database.close, threads.close))
        log = DecisionLog(tmp_path / "decisions.db", deployment="assistant", release="release-1")
        ends.append(log.close)
        backend = FakeBackend("Hé", "llo", " there")
        app = create_app(
            Served("tiny", "assistant", "release-1", "owner@example.com"),
            limits,
            backend=backend,
            tokenizer=tokenizer,
            chat_template=ChatTemplate("{{ messages[0].content }}", bos_token="<s>", eos_token=""),
            ready=lambda: True,
            tenancy=Tenancy("assistant", TENANTS, away, database, threads),
            decisions=log,
            clock=clock,
        )
        return Gateway(app, backend, database, log)

    yield one
    for end in reversed(ends):
        end()


@pytest.fixture
def gateway(begin: Begin, tmp_path: Path) -> Gateway:
    return begin(sqlite_url(tmp_path / "state.db"))


async def ask(gateway: Gateway, key: str, **more: object) -> httpx.Response:
    async with gateway.client(key) as client:
        return await client.post("/v1/completions", json={**PROMPT, **more})


class TestKeys:
    async def test_a_valid_key_is_served_as_its_tenant(self, gateway: Gateway) -> None:
        assert (await ask(gateway, gateway.key("search"))).status_code == 200
        (request,) = gateway.backend.requests
        assert (request.tenant, request.cache_salt) == ("search", "tenant:search")

    async def test_a_caller_cannot_choose_its_salt(self, gateway: Gateway) -> None:
        """Law 7: not by a header and not by a field."""
        async with gateway.client(gateway.key("search")) as client:
            client.headers.update({"x-session-id": "tenant:labs", "x-tenant": "labs"})
            assert (await client.post("/v1/completions", json=PROMPT)).status_code == 200
            field = await client.post("/v1/completions", json={**PROMPT, "cache_salt": "x"})
        assert field.status_code == 400
        assert [request.cache_salt for request in gateway.backend.requests] == ["tenant:search"]

    @pytest.mark.parametrize(
        ("header", "rule"),
        [
            (None, "key.missing"),
            ("Basic dXNlcjpwYXNz", "key.missing"),
            ("Bearer", "key.unknown"),
            ("Bearer none", "key.unknown"),
            (f"Bearer sk-salver-{'a' * 16}-{'b' * 43}", "key.unknown"),
        ],
    )
    async def test_without_a_valid_key_nothing_is_done(
        self, gateway: Gateway, header: str | None, rule: str
    ) -> None:
        async with gateway.client() as client:
            headers = {"authorization": header} if header else {}
            answer = await client.post("/v1/completions", json=PROMPT, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["error"]["rule"] == rule
        assert answer.json()["error"]["type"] == "authentication_error"
        assert gateway.backend.requests == []

    async def test_another_keys_id_with_ones_own_secret_is_unknown(self, gateway: Gateway) -> None:
        mine, other = gateway.key("search"), gateway.key("labs")
        mixed = other[: -len("x" * 43)] + mine[-43:]
        refused = await ask(gateway, mixed)
        assert refused.json()["error"]["rule"] == "key.unknown"
        assert mine[-43:] not in refused.text

    async def test_an_undeclared_tenant_is_forbidden(self, gateway: Gateway) -> None:
        refused = await ask(gateway, gateway.key("stranger"))
        assert refused.status_code == 403
        assert refused.json()["error"]["rule"] == "key.tenant"

    async def test_scopes(self, gateway: Gateway) -> None:
        inference, operations = gateway.key("search"), gateway.key("search", Scope.OPERATIONS)
        paths = {"/v1/models": inference, "/metrics": operations, "/version": operations}
        for path, allowed in paths.items():
            for key in (inference, operations, ""):
                async with gateway.client(key) as client:
                    status = (await client.get(path)).status_code
                assert status == (200 if key == allowed else 403 if key else 401)

    async def test_what_is_open_needs_no_key_and_all_else_does(self, gateway: Gateway) -> None:
        async with gateway.client() as client:
            for path in ("/health", "/ready", "/docs", "/openapi.json", "/docs/ui/favicon.png"):
                assert (await client.get(path)).status_code == 200, path
            for path in ("/v1/models/tiny", "/nothing", "/health/", "//health", "/docs/ui"):
                assert (await client.get(path)).status_code == 401, path
            for path in ("/tokenize", "/detokenize", "/v1/chat/completions"):
                assert (await client.post(path, json={})).status_code == 401, path

    async def test_a_revoked_key_is_refused_within_the_bound(
        self, begin: Begin, tmp_path: Path
    ) -> None:
        clock = ManualClock()
        gateway = begin(sqlite_url(tmp_path / "state.db"), clock=clock)
        key = gateway.key("search")
        assert (await ask(gateway, key)).status_code == 200
        gateway.keys.revoke(gateway.keys.list()[0].id)
        clock.advance(REFRESH_SECONDS)
        refused = await ask(gateway, key)
        assert refused.status_code == 401
        assert refused.json()["error"]["rule"] == "key.revoked"

    async def test_a_key_made_meanwhile_is_taken(self, gateway: Gateway) -> None:
        assert (await ask(gateway, gateway.key("search"))).status_code == 200
        key = gateway.key("search")
        await asyncio.sleep(0.15)
        assert (await ask(gateway, key)).status_code == 200

    async def test_an_expired_key_is_refused_without_asking_the_store(
        self, begin: Begin, tmp_path: Path
    ) -> None:
        clock = ManualClock()
        gateway = begin(sqlite_url(tmp_path / "state.db"), clock=clock)
        key, _ = gateway.keys.create("search", frozenset({Scope.INFERENCE}), lifetime_seconds=0.94)
        assert (await ask(gateway, key)).status_code == 200
        clock.advance(0.95)  # its lifetime is on the store's clock, so the first call had all of it
        refused = await ask(gateway, key)
        assert refused.json()["error"]["rule"] == "key.expired"

    async def test_many_callers_share_one_look_at_the_store(
        self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[object] = []
        plain = KeyStore.snapshot

        def look(store: KeyStore, known: KeySnapshot | None = None) -> KeySnapshot:
            looks.append(store)
            return plain(store, known)

        monkeypatch.setattr(KeyStore, "snapshot", look)
        unknown = f"sk-salver-{'a' * 16}-{'b' * 43}"
        answers = await asyncio.gather(*(ask(gateway, unknown) for _ in range(30)))
        assert {answer.status_code for answer in answers} == {401}
        assert len(looks) <= 3


class TestTurnedAway:
    async def test_a_caller_that_is_turned_away_hears_which_decision_it_was(
        self, gateway: Gateway, tmp_path: Path
    ) -> None:
        operator, stranger = gateway.key("search", Scope.OPERATIONS), gateway.key("nobody")
        wrong_scope, no_tenant = await ask(gateway, operator), await ask(gateway, stranger)
        missing = await ask(gateway, "")
        gateway.log.close()
        for answer, status, rule in (
            (wrong_scope, 403, "key.scope"),
            (no_tenant, 403, "key.tenant"),
            (missing, 401, "key.missing"),
        ):
            error = answer.json()["error"]
            assert (answer.status_code, error["rule"]) == (status, rule)
            assert answer.headers["x-salver-decision"] == error["decision"]
            (record,) = find_decisions(tmp_path / "decisions.db", error["decision"])
            assert (record.decision.rule, record.tenant) == (rule, "")

    async def test_whoever_has_no_key_cannot_fill_the_log(
        self, begin: Begin, tmp_path: Path
    ) -> None:
        clock = ManualClock()
        gateway = begin(sqlite_url(tmp_path / "state.db"), CLOSED, clock)
        answers = [await ask(gateway, "") for _ in range(150)]
        assert {answer.status_code for answer in answers} == {401}
        assert sum("x-salver-decision" in answer.headers for answer in answers) == 100
        clock.advance(1.0)
        later = [await ask(gateway, "") for _ in range(20)]
        assert sum("x-salver-decision" in answer.headers for answer in later) == 10


class TestQuotas:
    async def test_a_quota_is_reserved_before_and_settled_after(self, gateway: Gateway) -> None:
        key, other = gateway.key("labs"), gateway.key("search")
        answers = [await ask(gateway, key) for _ in range(13)]
        assert Counter(answer.status_code for answer in answers) == {200: 11, 429: 2}
        left = [answer.headers["x-ratelimit-remaining-tokens"] for answer in answers[:2]]
        assert left == ["180", str(180 - 17)], "20 reserved, 17 used"
        refused = answers[-1]
        error = refused.json()["error"]
        assert (error["rule"], error["limit"]) == ("tenants.tokens_per_minute", 200)
        assert error["code"] == "rate_limited"
        assert 0 < int(refused.headers["retry-after"]) <= 61
        assert refused.headers["x-salver-decision"] == error["decision"]
        assert refused.headers["x-ratelimit-limit-tokens"] == "200"
        assert refused.headers["x-ratelimit-remaining-tokens"] == str(200 - 11 * 17)
        assert 0 < float(refused.headers["x-ratelimit-reset-tokens"].removesuffix("s")) <= 61
        assert (await ask(gateway, other)).status_code == 200

    async def test_what_the_backend_refused_costs_no_tokens(self, gateway: Gateway) -> None:
        key = gateway.key("labs")
        gateway.backend.refusal = Decision(
            "dec-1", "admission.max_queued_tokens", 2, 1, Action.REFUSE, Cause.CALLER, "full", 1.0
        )
        assert (await ask(gateway, key)).status_code == 429
        gateway.backend.refusal = None
        answer = await ask(gateway, key)
        assert answer.headers["x-ratelimit-remaining-tokens"] == "180"

    async def test_what_nobody_computed_costs_no_tokens(
        self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A fixed text stands in for the release."""
        static = StaticAnswer("Busy, please retry.", MonotonicClock())
        monkeypatch.setattr(gateway.backend, "generate", static.generate)
        key = gateway.key("labs")
        answers = [await ask(gateway, key) for _ in range(2)]
        assert answers[0].json()["choices"][0]["text"] == "Busy, please retry."
        left = [answer.headers["x-ratelimit-remaining-tokens"] for answer in answers]
        assert left == ["180", "180"], "20 reserved, none used"

    async def test_concurrency_ends_with_the_call_however_it_ends(self, gateway: Gateway) -> None:
        key = gateway.key("labs")
        gateway.backend.gate = asyncio.Semaphore(0)
        held = [asyncio.create_task(ask(gateway, key)) for _ in range(2)]
        async with asyncio.timeout(5):
            while len(gateway.backend.active) < 2:
                await asyncio.sleep(0.01)
        refused = await ask(gateway, key)
        assert refused.json()["error"]["rule"] == "tenants.max_in_flight"
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        gateway.backend.gate = None
        async with asyncio.timeout(5):
            while (await ask(gateway, key)).status_code != 200:
                await asyncio.sleep(0.01)

    async def test_requests_per_minute_and_a_stream(self, gateway: Gateway) -> None:
        key = gateway.key("slow")
        streamed = await ask(gateway, key, stream=True)
        assert streamed.headers["x-ratelimit-remaining-requests"] == "1"
        assert (await ask(gateway, key)).status_code == 200
        refused = await ask(gateway, key, stream=True)
        assert refused.status_code == 429
        assert refused.json()["error"]["rule"] == "tenants.requests_per_minute"
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"

    @pytest.mark.parametrize(
        ("asked", "status", "rule"),
        [
            ({"max_tokens": 200}, 429, "tenants.tokens_per_minute"),
            ({"max_tokens": 40, "n": 5}, 429, "tenants.tokens_per_minute"),
            ({"max_tokens": 10**6}, 422, "envelope.max_output_tokens"),
            ({"prompt": "a" * 20_000, "max_tokens": 1}, 413, "envelope.max_context_tokens"),
        ],
    )
    async def test_what_bytes_decide_is_decided_before_tokenizing(
        self,
        gateway: Gateway,
        monkeypatch: pytest.MonkeyPatch,
        asked: dict[str, object],
        status: int,
        rule: str,
    ) -> None:
        def encode(*_: object, **__: object) -> list[int]:
            raise AssertionError("it was tokenized")

        monkeypatch.setattr(Tokenizer, "encode", encode)
        monkeypatch.setattr(QuotaStore, "reserve", encode)
        key = gateway.key("labs")
        words = {"prompt": "a", **asked}
        answer = await ask(gateway, key, **words)
        assert (answer.status_code, answer.json()["error"]["rule"]) == (status, rule)
        messages = [{"role": "user", "content": words.pop("prompt")}]
        async with gateway.client(key) as client:
            chat = await client.post(
                "/v1/chat/completions", json={"model": "tiny", "messages": messages, **words}
            )
        assert (chat.status_code, chat.json()["error"]["rule"]) == (status, rule)

    async def test_two_hundred_at_once_over_two_gateways(
        self, begin: Begin, store_url: str
    ) -> None:
        """The race of law 14, over HTTP: no replica spends what another one has."""
        gateways = [begin(store_url), begin(store_url)]
        key = gateways[0].key("labs")
        for gateway in gateways:
            gateway.backend.gate = asyncio.Semaphore(0)  # nothing ends before all were decided on
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(g.client(key)) for g in gateways]
            calls = [
                asyncio.create_task(clients[n % 2].post("/v1/completions", json=PROMPT))
                for n in range(50)
            ]
            async with asyncio.timeout(30):
                while sum(call.done() for call in calls) < 48:
                    await asyncio.sleep(0.02)
            assert sum(len(gateway.backend.active) for gateway in gateways) == 2
            for gateway in gateways:
                assert gateway.backend.gate is not None
                for _ in range(10):
                    gateway.backend.gate.release()
            ends = Counter(answer.status_code for answer in await asyncio.gather(*calls))
        assert ends == {200: 2, 429: 48}


class TestDecisions:
    async def test_every_refusal_by_a_rule_leaves_its_decision(
        self, gateway: Gateway, tmp_path: Path
    ) -> None:
        key = gateway.key("slow")
        answers = [await ask(gateway, key, stream=bool(n % 2)) for n in range(4)]
        gateway.log.close()
        for answer in answers[2:]:
            (found,) = find_decisions(
                tmp_path / "decisions.db", answer.headers["x-salver-decision"]
            )
            assert found.decision.rule == answer.json()["error"]["rule"]
            assert (found.tenant, found.deployment) == ("slow", "assistant")
            assert found.request_id == answer.headers["x-request-id"]

    async def test_so_does_an_answer_that_is_late_in_the_middle_of_its_stream(
        self, gateway: Gateway, tmp_path: Path
    ) -> None:
        gateway.backend.outcome = Outcome.EXPIRED
        answer = await ask(gateway, gateway.key("search"), stream=True)
        event = json.loads(answer.text.strip().splitlines()[-1].removeprefix("data: "))
        gateway.log.close()
        (found,) = find_decisions(tmp_path / "decisions.db", event["error"]["decision"])
        assert (found.decision.action, found.tenant) == (Action.EXPIRE, "search")

    async def test_and_an_answer_whose_request_was_preempted(
        self, gateway: Gateway, tmp_path: Path
    ) -> None:
        gateway.backend.preempted = Decision(
            "dec-1", "release.envelope.memory", 9, 8, Action.PREEMPT, Cause.SERVER, "it made room"
        )
        answer = await ask(gateway, gateway.key("search"))
        gateway.log.close()
        (found,) = find_decisions(tmp_path / "decisions.db", "dec-1")
        assert found.decision == gateway.backend.preempted
        assert (found.tenant, answer.status_code) == ("search", 200)
        assert found.request_id == answer.headers["x-request-id"]


class TestWithoutTheStore:
    @pytest.fixture
    def lose_the_store(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        def lose() -> None:
            monkeypatch.setattr(Database, "reading", _refusing)
            monkeypatch.setattr(Database, "writing", _refusing)

        return lose

    async def test_keys_and_quotas_fail_closed_where_nothing_is_said(
        self, begin: Begin, tmp_path: Path, lose_the_store: Callable[[], None]
    ) -> None:
        clock = ManualClock()
        gateway = begin(sqlite_url(tmp_path / "state.db"), clock=clock)
        key = gateway.key("labs")
        assert (await ask(gateway, key)).status_code == 200
        lose_the_store()
        refused = await ask(gateway, key)  # the ring is young enough, the quota is not
        assert refused.status_code == 503
        assert refused.json()["error"]["rule"] == "admission.state_away.tokens_per_minute"
        assert "retry-after" in refused.headers
        clock.advance(REFRESH_SECONDS)
        refused = await ask(gateway, key)
        assert refused.json()["error"]["rule"] == "state.available"

    async def test_what_fails_open_goes_on_and_is_counted(
        self, begin: Begin, tmp_path: Path, lose_the_store: Callable[[], None]
    ) -> None:
        clock = ManualClock()
        gateway = begin(sqlite_url(tmp_path / "state.db"), OPEN, clock)
        slow, labs = gateway.key("slow"), gateway.key("labs")
        operator = gateway.key("search", Scope.OPERATIONS)
        assert (await ask(gateway, slow)).status_code == 200
        lose_the_store()
        clock.advance(100 * REFRESH_SECONDS)
        answers = [await ask(gateway, slow) for _ in range(4)]
        assert {answer.status_code for answer in answers} == {200}
        async with gateway.client(operator) as client:
            told = (await client.get("/metrics")).text
        (line,) = [each for each in told.splitlines() if "quota_unchecked_total{" in each]
        assert 'tenant="slow"' in line
        assert line.endswith(" 4.0")
        closed = await ask(gateway, labs)
        assert closed.json()["error"]["rule"] == "admission.state_away.max_in_flight"


def _refusing(_: Database) -> object:
    raise StateUnavailable("the state store is away", rule="state.available")


async def test_openais_client_names_each_refusal(gateway: Gateway) -> None:
    listener, stop = listen("127.0.0.1", 0), asyncio.Event()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    serving = asyncio.create_task(serve(gateway.app, listener, stop=stop, handle_signals=False))

    async def call(key: str) -> object:
        async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
            return await client.completions.create(model="tiny", prompt="hi", max_tokens=150)

    labs, stranger = gateway.key("labs"), gateway.key("stranger")
    with pytest.raises(AuthenticationError):
        await call("sk-wrong")
    with pytest.raises(PermissionDeniedError):
        await call(stranger)
    await call(labs)
    await call(labs)
    gateway.backend.pieces = ("x" * 150,)
    await call(labs)
    with pytest.raises(RateLimitError) as limited:
        await call(labs)
    assert limited.value.code == "rate_limited"
    stop.set()
    await asyncio.wait_for(serving, 10)


def test_without_tenants_nobody_waits_for_sql() -> None:
    code = "import sys, salver.cli.service; print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
