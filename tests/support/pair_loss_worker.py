"""One process of a training with pairs of the global batch on gloo.

`pair_loss_worker.py <rank> <world size> <rendezvous file> <out file>` saves the losses and the gradients of a small
net under DistributedDataParallel for its share of a batch of the identity sampler; then what unequal batches answer.
"""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from timm_dpa.train.losses import METRIC_LOSSES, create_metric_loss, gather_batch
from timm_dpa.train.samplers import IdentitySampler

PIDS = torch.arange(40) // 5


def net() -> nn.Module:
    """In float64, so that rounding hides nothing."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 8)).double()


def images() -> torch.Tensor:
    return torch.randn(len(PIDS), 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def steps(module: nn.Module, rank: int = 0, world: int = 1) -> dict[str, dict[str, torch.Tensor]]:
    """Value and gradients of each loss on the first batch of this process."""
    batch = next(iter(IdentitySampler(PIDS.numpy(), identities=4, images=3, rank=rank, world_size=world)))
    results = {}
    for name in METRIC_LOSSES:
        module.zero_grad()
        loss = create_metric_loss(name)(module(images()[batch]), PIDS[batch])
        loss.backward()
        gradients = {key.removeprefix('module.'): p.grad.clone() for key, p in module.named_parameters()}
        results[name] = {'loss': loss.detach(), **gradients}
    return results


def main(rank: int, world: int, rendezvous: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{rendezvous}', rank=rank, world_size=world)
    results = {'steps': steps(DistributedDataParallel(net()), rank, world)}
    embeddings = torch.full((2, 3), float(rank), dtype=torch.bfloat16)
    results['half'] = gather_batch(embeddings, torch.tensor([rank, 10]))
    try:
        gather_batch(torch.zeros(2 + rank, 3), torch.zeros(2 + rank, dtype=torch.int64))
    except ValueError as error:
        results['unequal'] = str(error)
    torch.save(results, out)
    dist.destroy_process_group()


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
