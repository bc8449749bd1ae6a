"""One process of an evaluation on gloo: `ranking_worker.py <rank> <world size> <rendezvous file> <out file>`."""

import sys

import numpy as np
import torch
import torch.distributed as dist

from timm_dpa.train.evaluation.metrics import evaluate, evaluate_draws


def data() -> tuple[np.ndarray, ...]:
    """Query and gallery embeddings, identities and cameras; an odd number of queries."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, 16))
    query_pids, gallery_pids = rng.integers(0, 12, 41), rng.integers(0, 12, 150)
    query, gallery = (
        (centres[pids] + 2 * rng.normal(size=(len(pids), 16))).astype(np.float32) for pids in (query_pids, gallery_pids)
    )
    return query, gallery, query_pids, gallery_pids, rng.integers(0, 4, 41), rng.integers(0, 4, 150)


def results(distributed: bool) -> dict[str, np.ndarray | float]:
    query, gallery, query_pids, gallery_pids, *cameras = data()
    one = evaluate(query, gallery, query_pids, gallery_pids, *cameras, distributed=distributed)
    few = evaluate(query[:1], gallery, query_pids[:1], gallery_pids, distributed=distributed)  # a process without any
    draws = evaluate_draws(gallery, gallery_pids, draws=2, distributed=distributed)
    return {
        **{f'one_{name}': getattr(one, name) for name in ('cmc', 'mAP', 'mINP', 'ap', 'inp', 'first_match')},
        'few_mAP': few.mAP,
        **{f'draws_{name}': value for name, value in draws.mean.items()},
    }


def main(rank: int, world: int, rendezvous: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{rendezvous}', rank=rank, world_size=world)
    np.savez(out, **results(distributed=True))
    dist.destroy_process_group()


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
