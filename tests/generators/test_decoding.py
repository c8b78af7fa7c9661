"""The decoding step against recorded official runs, slow loops and closed forms."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from generators.conditions import Condition, Labels
from generators.contract import Prediction
from generators.decoding import DecodeState, advance, lowest, refuse_not_finite, start
from generators.nat import NAT, nat_digits
from generators.noise import HashNoise, RecordedNoise
from generators.rules import GUIDANCE_FLOOR, DecodeRules
from generators.schedules import DecodeParams, Schedule
from generators.weights import convert
from rounding import GOLDEN, assert_rounded

B, T = 6, 5


@pytest.fixture(scope="module")
def model() -> NAT:
    """A small NAT whose logits spread as if trained."""
    torch.manual_seed(0)
    model = NAT(nat_digits()).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


class Constant:
    """A generator that predicts the same logits everywhere: one vector per class, the last for null."""

    grid, width = (64, 64), 1
    num_tokens = 64 * 64

    def __init__(self, logits_CV: Tensor, cache: Any = None) -> None:
        self.logits_CV, self.cache = logits_CV, cache
        self.codebook_size = self.mask_id = logits_CV.shape[1]

    def __call__(self, ids_BL: Tensor, condition: Condition, cache: Any = None) -> Prediction:
        logits_BLV = self.logits_CV[condition.values][:, None].expand(-1, ids_BL.shape[1], -1)
        reused = self.cache and Trail(["c"] * len(ids_BL))
        return Prediction(logits_BLV, torch.zeros(*ids_BL.shape, 1), reused)


class Trail(tuple[str, ...]):
    """A cache that tells of each row which passes it went through: "c" conditional, "n" null."""

    def __getitem__(self, rows: Any) -> Any:
        return Trail(tuple(self)[row] for row in rows.tolist())

    def put(self, rows: Tensor, other: "Trail") -> "Trail":
        changed = dict(zip(rows.tolist(), tuple(other), strict=True))
        return Trail(changed.get(row, trail) for row, trail in enumerate(tuple(self)))


class Watched:
    """Wrap a generator and list its calls: rows, whether unconditional, cache; `reuse` returns one."""

    def __init__(self, generator: NAT, *, reuse: bool = False) -> None:
        self.generator, self.reuse, self.calls = generator, reuse, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.generator, name)

    def __call__(self, ids_BL: Tensor, condition: Condition, cache: Any = None) -> Prediction:
        null = condition.names == condition.null().names
        self.calls.append((len(ids_BL), null, cache))
        trails = tuple(cache or [""] * len(ids_BL))
        answer = Trail(trail + "cn"[null] for trail in trails) if self.reuse else None
        return self.generator(ids_BL, condition)._replace(cache=answer)


def labels(num_rows: int = B, num_classes: int = 10) -> Labels:
    return Labels(torch.arange(num_rows) % num_classes, num_classes)


def random_tables(steps: int = T, num_rows: int = B, *, seed: int = 0) -> Tensor:
    """Decoding parameters (T, B, 4), different for every row and step; a third of the rows is not guided."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.rand(steps, num_rows, 4, generator=generator, dtype=torch.float64)
    scales = table[..., 3]
    scales = torch.where(scales < 1 / 3, scales * GUIDANCE_FLOOR, 3 * scales)
    return torch.stack([table[..., 0], 2 * table[..., 1], 0.5 + table[..., 2], scales], dim=-1)


def decode(
    generator: Any,
    tables_TB4: Tensor,
    *,
    rows: Sequence[int] | None = None,
    steps: int | None = None,
    **options: Any,
) -> list[DecodeState]:
    """Return the states of a run, the first included; `rows` runs only those rows."""
    rows = list(range(tables_TB4.shape[1])) if rows is None else list(rows)
    condition, noise = labels(tables_TB4.shape[1])[rows], HashNoise(100 + torch.tensor(rows))
    states = [start(generator, condition, steps=steps or len(tables_TB4))]
    for table_B4 in tables_TB4[:, rows]:
        params = DecodeParams.from_table(table_B4)
        states.append(advance(generator, states[-1], params, noise, **options))
    return states


def geometry(kwargs: dict[str, Any]) -> dict[str, int]:
    """What the shapes of an ENAT don't tell."""
    return {"decoder_depth": kwargs["enc_dec"][1]} if "enc_dec" in kwargs else {}


def replay(golden: Any, name: str, tables: Any, **options: Any) -> None:
    """Compare all recorded runs of one file, step by step."""
    tensors, meta = golden(name)
    official = {key[3:]: tensor for key, tensor in tensors.items() if key.startswith("sd.")}
    model: Any = convert(official, heads=meta["kwargs"]["num_heads"], **geometry(meta["kwargs"])).build()
    condition = Labels(tensors["in.context"][:, 0], meta["uncond_class"])
    for run, facts in meta["runs"].items():
        prefix = f"run.{run}."
        recorded = {
            key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
        }
        noise = RecordedNoise()
        if facts["noisy"]:
            noise = RecordedNoise(recorded["cat_noise_x16"] / 16, recorded["gumbel"])
        state = start(model, condition, steps=facts["T"])
        for step, params in enumerate(tables(facts, recorded, len(condition))):
            where, masked_BL = f"{name} {run} step {step}", state.ids_BL == model.mask_id
            state = advance(model, state, params, noise, DecodeRules(guidance_floor=0, **options))
            assert torch.equal(state.drawn_BL, recorded["sampled_ids"][step].long()), where
            # Upstream overwrites the log-probabilities of visible tokens by infinity.
            found = torch.where(masked_BL, state.log_probs_BL, torch.inf)
            # Guidance multiplies what the rounding of two passes is off by.
            bound = GOLDEN["atol"] * (1 + 2 * float(params.guidance_scale.max()))
            torch.testing.assert_close(found, recorded["logp_sampled"][step], atol=bound, rtol=0, msg=where)
            if not state.done:  # what upstream masks in the last step nobody reads
                assert torch.equal(state.ids_BL, recorded["ids_after"][step].long()), where
                assert state.masked_B.tolist() == facts["n_masked_after"][step], where
        assert state.done and torch.equal(state.ids_BL, recorded["final_ids"].long()), run
        assert bool((state.nfe_B < facts["nfe"]).all()), "no more passes than upstream"


@pytest.mark.golden
def test_recorded_autonat_runs(golden: Any) -> None:
    def tables(facts: Any, recorded: Any, num_rows: int) -> list[DecodeParams]:
        sampling = [max(value, 1e-4) for value in facts["samp_temp"]]  # the official caller's floor
        columns = facts["mask_ratio"], facts["conf_temp"], sampling, facts["cfg_used"]
        schedule = Schedule(torch.tensor(columns, dtype=torch.float64).T)
        return [schedule.params(step, num_rows) for step in range(facts["T"])]

    replay(golden, "loop_inat", tables, min_reveal=1, min_masked=1)


@pytest.mark.golden
def test_recorded_adanat_runs(golden: Any) -> None:
    """Every sample has its own parameters, float32 as upstream; a step may reveal nothing."""

    def tables(facts: Any, recorded: Any, num_rows: int) -> list[DecodeParams]:
        names = "gen_ratios", "temp", "samp_temp", "cfg"
        columns = [recorded[f"schedule.manual_{name}"] for name in names]
        return [DecodeParams(*row) for row in zip(*columns, strict=True)]

    replay(golden, "loop_adanat", tables, min_reveal=0)


@pytest.mark.golden
def test_recorded_enat_runs(golden: Any) -> None:
    """Features are reused in both streams; unguided at the first step."""

    def tables(facts: Any, recorded: Any, num_rows: int) -> list[DecodeParams]:
        columns = facts["mask_ratio"], facts["conf_temp"], facts["samp_temp"], facts["cfg_used"]
        schedule = Schedule(torch.tensor(columns, dtype=torch.float64).T)
        return [schedule.params(step, num_rows) for step in range(facts["T"])]

    replay(golden, "loop_enat", tables)


@pytest.mark.parametrize("min_reveal", [0, 1])
def test_a_visible_token_stays(model: NAT, min_reveal: int) -> None:
    tables = random_tables()
    tables[2, :, 0] = 1.0  # asks for more masks than are left
    states = decode(model, tables, rules=DecodeRules(min_reveal=min_reveal))
    for before, after in zip(states, states[1:], strict=False):
        visible_BL = before.ids_BL != model.mask_id
        assert torch.equal(after.ids_BL[visible_BL], before.ids_BL[visible_BL])
        assert torch.equal(after.drawn_BL[visible_BL], before.ids_BL[visible_BL])
    assert (states[2].ids_BL != model.mask_id).any(), "something was visible when it mattered"


def test_every_step_reveals_at_least_one_token(model: NAT) -> None:
    """Ratio 1 asks to keep everything masked; L steps reveal one token each."""
    L = model.num_tokens
    states = decode(model, torch.tensor([1.0, 1.0, 1.0, 0.0]).expand(L, 2, 4))
    assert [state.masked_B.tolist() for state in states] == [[L - step] * 2 for step in range(L + 1)]
    assert [int((state.ids_BL == model.mask_id).sum()) for state in states] == [
        2 * (L - k) for k in range(L + 1)
    ]


@pytest.mark.parametrize(("min_reveal", "min_masked"), [(1, 0), (0, 0), (1, 1), (3, 2)])
@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_exactly_the_lowest_scores_are_masked_again(
    model: NAT, steps: int, min_reveal: int, min_masked: int
) -> None:
    """A loop over rows recomputes how many and which."""
    tables, L = random_tables(steps, seed=steps), model.num_tokens
    states = decode(model, tables, rules=DecodeRules(min_reveal=min_reveal, min_masked=min_masked))
    for step, (before, after) in enumerate(zip(states[:-1], states[1:], strict=True)):
        gumbel_BL = HashNoise(100 + torch.arange(B)).gumbel(step, L)
        for row in range(B):
            ratio, remask = tables[step, row, :2].tolist()
            masked = (before.ids_BL[row] == model.mask_id).nonzero()[:, 0].tolist()
            count = max(min(math.floor(L * ratio), len(masked) - min_reveal, L - 1), min_masked)
            count = 0 if after.done else min(count, len(masked))
            scores = {
                token: after.log_probs_BL[row, token] + remask * gumbel_BL[row, token] for token in masked
            }
            expected = sorted(masked, key=scores.get)[:count]
            assert (after.ids_BL[row] == model.mask_id).nonzero()[:, 0].tolist() == sorted(expected)
            assert after.masked_B[row] == count


@pytest.mark.parametrize(
    ("ratio", "masked", "min_reveal", "min_masked", "expected"),
    [
        (0.5, 16, 1, 0, 8),
        (0.3, 16, 1, 0, 4),  # floor(4.8)
        (0.0, 16, 1, 0, 0),
        (0.0, 16, 1, 1, 1),
        (1.0, 16, 1, 0, 15),
        (1.0, 16, 0, 0, 15),  # one token is visible after the first step in any case
        (1.0, 5, 0, 0, 5),  # nothing revealed
        (1.0, 5, 1, 0, 4),
        (1.0, 1, 1, 0, 0),
        (1.0, 1, 1, 1, 1),
        (1.0, 0, 0, 0, 0),
        (1.0, 0, 1, 0, 0),
        (0.0, 0, 1, 1, 0),  # nothing is left to mask
        (0.5, 16, 12, 0, 4),
        (0.5, 2, 12, 0, 0),
    ],
)
def test_mask_counts_at_the_edges(
    ratio: float, masked: int, min_reveal: int, min_masked: int, expected: int
) -> None:
    counts = DecodeRules(min_reveal=min_reveal, min_masked=min_masked).mask_counts(
        torch.tensor([ratio]), torch.tensor([masked]), 16
    )
    assert counts.tolist() == [expected] and counts.dtype == torch.long


@pytest.mark.parametrize("score", [float("inf"), float("-inf"), float("nan")])
def test_no_score_makes_a_visible_token_masked(model: NAT, score: float) -> None:
    """A rule of one's own may return anything; ties go by position."""
    masked_BL = torch.tensor([[0, 1, 1, 0, 1, 1], [1, 0, 0, 0, 0, 1]]).bool()
    chosen_BL = lowest(torch.full((2, 6), score), masked_BL, torch.tensor([3, 1]))
    assert chosen_BL.int().tolist() == [[0, 1, 1, 0, 1, 0], [1, 0, 0, 0, 0, 0]]
    rules = DecodeRules(lambda proposal, *_: torch.full_like(proposal.log_probs_BL, score))
    states = decode(model, random_tables(), rules=rules)
    for state in states:
        assert torch.equal((state.ids_BL == model.mask_id).sum(1), state.masked_B)


@pytest.mark.parametrize("rows", [[0], [1], [2], [3], [4], [5], [4, 0, 5, 2, 1, 3], [3, 1]])
@pytest.mark.parametrize("same_params", [True, False])
def test_a_row_does_not_depend_on_its_batch(model: NAT, rows: list[int], same_params: bool) -> None:
    """Rows alone, permuted or with fewer neighbors go the same way, each with parameters of its own."""
    tables = random_tables()
    if same_params:
        tables = tables[:, :1].expand(-1, B, -1)
    for whole, part in zip(decode(model, tables), decode(model, tables, rows=rows), strict=True):
        assert torch.equal(whole.ids_BL[rows], part.ids_BL)
        assert torch.equal(whole.masked_B[rows], part.masked_B)
        assert torch.equal(whole.nfe_B[rows], part.nfe_B)
        if not whole.done:
            features = whole.prediction.features_BLD[rows], part.prediction.features_BLD
            assert_rounded(*features)


def test_rows_and_steps_draw_their_own_noise(model: NAT) -> None:
    """Equal rows part by their seeds alone, and the noise is asked once per step, with that step's number."""
    asked = []

    class Watching(HashNoise):
        def categorical(self, logits_BLV: Tensor, step: int) -> Tensor:
            asked.append(("token", step))
            return super().categorical(logits_BLV, step)

        def gumbel(self, step: int, num_tokens: int) -> Tensor:
            asked.append(("gumbel", step))
            return super().gumbel(step, num_tokens)

    state = start(model, Labels(torch.tensor([3, 3, 3]), 10), steps=3)
    for _ in range(3):
        params = DecodeParams.from_table(torch.tensor([[0.5, 1.0, 1.0, 1.0]]).expand(3, 4))
        state = advance(model, state, params, Watching(torch.tensor([7, 8, 7])))
    assert asked == [("token", 0), ("gumbel", 0), ("token", 1), ("gumbel", 1), ("token", 2)]
    assert torch.equal(state.ids_BL[0], state.ids_BL[2]) and not torch.equal(state.ids_BL[0], state.ids_BL[1])


@pytest.mark.parametrize("cache", [None, Trail(["c"] * 5)])
def test_guidance_follows_its_formula(cache: Any) -> None:
    """Constant logits give the drawn law and the log-probabilities in closed form, at all steps and rows."""
    logits_CV = torch.tensor([[0.0, 1.0, 0.5, -1.0], [1.0, 0.3, -0.5, 0.0], [0.5, -0.5, 0.0, 0.3]])
    scales, sampling = [0.7, 3.0, 0.0, GUIDANCE_FLOOR, 0.2], [1.0, 2.0, 0.5, 1.5, 0.7]
    classes = torch.tensor([0, 1, 0, 1, 0])
    generator = Constant(logits_CV, cache)
    state = start(generator, Labels(classes, 2), steps=3)
    columns = torch.ones(5), torch.zeros(5), torch.tensor(sampling), torch.tensor(scales)
    for _ in range(3):
        state = advance(generator, state, DecodeParams(*columns), HashNoise.from_seed(0, 5))
        for row, (scale, temperature) in enumerate(zip(scales, sampling, strict=True)):
            conditional, null = logits_CV[classes[row]].double(), logits_CV[2].double()
            guided = conditional + (scale * (conditional - null) if scale > GUIDANCE_FLOOR else 0)
            drawn_L, L = state.drawn_BL[row], generator.num_tokens
            expected_L = guided.log_softmax(0)[drawn_L].float()
            assert_rounded(state.log_probs_BL[row], expected_L)
            law = (guided / temperature).softmax(0)
            assert chisquare(drawn_L.bincount(minlength=4), L * law).pvalue > 1e-3, (row, state.step)


def test_guidance_floor_lets_every_scale_through_at_zero() -> None:
    logits_CV = torch.tensor([[0.0, 1.0], [9.0, 9.0], [1.0, 0.0]])
    generator, one = Constant(logits_CV), torch.ones(1)
    state = start(generator, Labels(torch.tensor([0]), 2), steps=1)
    params = DecodeParams(0 * one, 0 * one, one, 1e-3 * one)
    above = advance(generator, state, params, RecordedNoise(), DecodeRules(guidance_floor=0)).log_probs_BL
    below = advance(generator, state, params, RecordedNoise()).log_probs_BL
    assert torch.equal(below, torch.full_like(below, float(logits_CV[0].log_softmax(0)[1])))
    assert bool((above > below).all())


def unshared_rows(calls: list[tuple[int, bool, Any]]) -> int:
    """Rows of all passes but the one-row unconditional pass of the first step, the second call if any."""
    assert all(rows == 1 for rows, null, _ in calls[1:2] if null), "the first unconditional pass is shared"
    return sum(rows for index, (rows, null, _) in enumerate(calls) if not (index == 1 and null))


def test_passes_are_counted_as_they_run(model: NAT) -> None:
    """Row by row: one per step, and one more at each guided step but the first."""
    guided_TB = torch.rand(8, B, generator=torch.Generator().manual_seed(2)) < 0.5
    guided_TB[:, 0], guided_TB[:, 1], guided_TB[4] = True, False, False
    tables = torch.tensor([0.5, 1.0, 1.0, 0.0]).repeat(8, B, 1)
    tables[..., 3] = 2.0 * guided_TB
    watched = Watched(model)
    state = decode(watched, tables)[-1]
    assert state.nfe_B.tolist() == (8 + guided_TB[1:].sum(0)).tolist()
    assert unshared_rows(watched.calls) == state.nfe_B.sum()
    assert sum(null for _, null, _ in watched.calls) == 7, "none in the step where no row is guided"


@pytest.mark.parametrize(("scale", "steps", "passes"), [(2.0, 8, 15), (0.0, 8, 8), (2.0, 1, 1), (0.0, 1, 1)])
def test_number_of_passes(model: NAT, scale: float, steps: int, passes: int) -> None:
    """None is wasted: no unconditional pass without guidance, none at all after the last step."""
    watched = Watched(model)
    states = decode(watched, torch.tensor([0.5, 1.0, 1.0, scale]).expand(steps, 2, 4))
    assert states[-1].nfe_B.tolist() == [passes, passes] and unshared_rows(watched.calls) == 2 * passes
    assert len(watched.calls) == passes + (scale > 0)
    assert states[-1].prediction is None and all(state.prediction is not None for state in states[:-1])


def test_both_streams_carry_their_own_cache(model: NAT) -> None:
    """A generator that reuses features gets back what it returned for a row; an unguided row stands still."""
    watched = Watched(model, reuse=True)
    tables = torch.tensor([0.5, 1.0, 1.0, 1.0]).repeat(4, 3, 1)
    tables[:, 1, 3] = 0.0
    tables[2, 2, 3] = 0.0
    state = decode(watched, tables)[-1]
    assert watched.calls == [
        (3, False, None),  # start
        (1, True, None),  # step 0, shared
        (3, False, ("c",) * 3),
        (2, True, ("c", "c")),  # step 1: the cache of an all-masked pass holds nothing
        (3, False, ("cc",) * 3),
        (1, True, ("cn",)),
        (3, False, ("ccc",) * 3),
        (2, True, ("cnn", "cn")),
    ]
    assert state.nfe_B.tolist() == [7, 4, 6] and tuple(state.null_cache) == ("cnnn", "c", "cnn")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_generator_that_predicts_no_numbers_is_refused(value: float) -> None:
    """A code may be forbidden, though."""
    condition = Labels(torch.tensor([0]), 10)
    forbidden, wrong = (Constant(torch.tensor([[0.0, logit]] * 11)) for logit in (-math.inf, value))
    refuse_not_finite(start(forbidden, condition, steps=1))
    with pytest.raises(ValueError, match="the generator predicts NaN or infinity before the first step"):
        refuse_not_finite(start(wrong, condition, steps=1))


@pytest.mark.parametrize("rules", ["confidence", "margin", "entropy", "entropy-bound", "guidance_parallel=0"])
def test_a_code_that_is_forbidden_is_never_drawn(rules: str) -> None:
    """Guided or not, by any rule, everything is as of a generator without that code."""
    logits_CV = torch.tensor([[0.5, 1.0, -0.5]] * 10 + [[0.0, -1.0, 0.5]])
    forbidden = torch.cat([logits_CV, torch.full((11, 1), -math.inf)], 1)
    one, played = torch.ones(2, dtype=torch.float64), []
    for generator in (Constant(logits_CV), Constant(forbidden)):
        states = [start(generator, Labels(torch.tensor([0, 1]), 10), steps=3)]
        for _ in range(3):
            params = DecodeParams(one / 2, one, one, torch.tensor([0.0, 2.0], dtype=torch.float64))
            noise, how = HashNoise.from_seed(0, 2), DecodeRules.of(rules, generator.grid)
            states.append(advance(generator, states[-1], params, noise, how, entropy=True))
        played.append(states)
    for expected, state in zip(*(states[1:] for states in played), strict=True):
        assert torch.equal(state.drawn_BL, expected.drawn_BL)
        assert torch.equal(state.ids_BL == 4, expected.ids_BL == 3), "the mask comes after the codes"
        assert_rounded(state.entropy_BL, expected.entropy_BL)
        assert_rounded(state.log_probs_BL, expected.log_probs_BL)


def test_one_class_is_not_guided() -> None:
    """There is nothing to guide by: no pass is spent, and the network's word is taken as it is."""
    generator = Constant(torch.tensor([[0.0, 1.0], [5.0, 0.0]]))
    one = torch.ones(2)
    states = []
    for scale in (0.0, 3.0):
        state = start(generator, Labels(torch.zeros(2, dtype=torch.long), 1), steps=2)
        for _ in range(2):
            state = advance(
                generator, state, DecodeParams(one / 2, 0 * one, one, scale * one), HashNoise.from_seed(0, 2)
            )
        states.append(state)
    free, guided = states
    assert guided.nfe_B.tolist() == free.nfe_B.tolist() == [2, 2]
    assert torch.equal(guided.ids_BL, free.ids_BL) and torch.equal(guided.log_probs_BL, free.log_probs_BL)


def test_a_finished_state_is_refused(model: NAT) -> None:
    tables = random_tables(2)
    state = decode(model, tables)[-1]
    assert state.done and (state.ids_BL != model.mask_id).all() and state.masked_B.eq(0).all()
    with pytest.raises(ValueError, match="all 2 steps are taken"):
        advance(model, state, DecodeParams.from_table(tables[0]), HashNoise.from_seed(0, B))
    with pytest.raises(ValueError, match="steps 0"):
        start(model, labels(), steps=0)


def test_advance_changes_nothing_behind_the_caller(model: NAT) -> None:
    """The same state can be advanced twice, with the same result."""
    tables, noise = random_tables(), HashNoise.from_seed(0, B)
    state = decode(model, tables[:2], steps=T)[-1]
    kept = {name: getattr(state, name).clone() for name in ("ids_BL", "masked_B", "nfe_B", "drawn_BL")}
    params = DecodeParams.from_table(tables[2])
    first, second = (advance(model, state, params, noise) for _ in range(2))
    assert torch.equal(first.ids_BL, second.ids_BL) and first.step == state.step + 1 == 3
    assert all(torch.equal(getattr(state, name), value) for name, value in kept.items())
