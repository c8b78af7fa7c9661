"""Ranks: one process is rank 0 whatever the shell holds, and ranks that begin at different places stop."""

import re
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

from agents.distributed.workers import agree, own_device, process_group, rank
from generators.data import tokens
from generators.files import replacing
from natgym.task import Task


def test_a_rank_without_a_world_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    assert rank() == 0 and own_device("cuda") == torch.device("cuda:0")
    with process_group():
        assert not dist.is_initialized() and rank() == 0
        agree("nothing", 1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert rank() == 3


def agreeing(number: int, port: int, folder: Path) -> None:
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=number == 0)
    dist.init_process_group("gloo", store=store, rank=number, world_size=2)
    agree("the update", 7)
    try:
        agree("the update", 7 + number)
    except ValueError as error:
        (folder / str(number)).write_text(str(error))
    dist.barrier()


@pytest.mark.slow
def test_ranks_that_begin_at_different_places_say_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    multiprocessing.spawn(agreeing, (port, tmp_path), nprocs=2)
    said = "the update differs from rank to rank, [7, 8]: let all nodes see the same files"
    assert [(tmp_path / str(number)).read_text() for number in (0, 1)] == [said, said]


def test_a_temporary_name_says_who_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no two of a cluster's processes share one, whatever of host, process and rank they share."""
    names = []
    for host, process, number in [("a", 1, "0"), ("b", 1, "0"), ("a", 2, "0"), ("a", 1, "1")]:
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        monkeypatch.setattr("os.getpid", lambda process=process: process)
        monkeypatch.setenv("RANK", number)
        with replacing(tmp_path / "file") as temporary:
            temporary.write_text("whole")
            names.append(temporary.name)
    assert len(set(names)) == 4 and all(re.fullmatch(r"\.file\.[ab]-[12]-[01]\.part", name) for name in names)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def encoding(number: int, port: int, folder: Path) -> None:
    """Rank 0 has a file already, of one task, and none of the other."""
    store = dist.TCPStore("127.0.0.1", port, 3, is_master=number == 0)
    dist.init_process_group("gloo", store=store, rank=number, world_size=3)
    torch.set_num_threads(1)
    tokenizer: Any = Task.load("digits").tokenizer
    seen, encode = [], tokenizer.encode
    tokenizer.encode = lambda images: seen.append(len(images)) or encode(images)
    cache = folder / ("has" if number == 0 else f"lacks-{number}")
    ids_NL, _ = tokens("digits", "train", tokenizer, cache, mirror=True, batch_size=256)
    torch.save((seen, ids_NL), folder / f"{number}.pt")
    tokens("digits", "train", tokenizer, folder / "has", mirror=True, batch_size=256)
    assert len(seen) == len(torch.load(folder / f"{number}.pt")[0]), "now all have it"
    dist.barrier()


@pytest.mark.slow
def test_ranks_encode_each_a_share_and_all_get_the_whole(tmp_path: Path) -> None:
    tokenizer: Any = Task.load("digits").tokenizer
    whole_NL, _ = tokens("digits", "train", tokenizer, tmp_path / "has", mirror=True, batch_size=256)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    multiprocessing.spawn(encoding, (port, tmp_path), nprocs=3)
    shares, ids = zip(*(torch.load(tmp_path / f"{number}.pt") for number in range(3)), strict=True)
    assert shares == ([256] * 4, [256, 256, 173, 173], [256, 256]), "batches of 1,197 images, each both ways"
    assert all(torch.equal(ids_NL, whole_NL) for ids_NL in ids)
    assert (tmp_path / "lacks-1").is_dir() and (tmp_path / "lacks-2").is_dir()
