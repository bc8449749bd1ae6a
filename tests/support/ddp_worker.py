"""One process of a data-parallel training on gloo: `ddp_worker.py <rank> <world size> <rendezvous file> <out file>`.

Saves the gradients of a step with frozen batch norms, and of a second one with training ones on the updated weights.
"""

import sys

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from tests.support.models import freeze_batch_norm, images, tiny

SHAPE = (4, 3, 64, 64)


def model():
    return tiny('dpa', num_classes=5, attn_stages=(2, 3), attn_args={'kernel_num': 2, 'gem_learnable': True}).train()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """The whole batch, half of which each of two processes gets."""
    return images(*SHAPE), torch.tensor([0, 3, 1, 4])


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters()}


def main(rank: int, world: int, rendezvous: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{rendezvous}', rank=rank, world_size=world)
    net = model()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(rank)  # the wrapper has to send the weights of process 0
    ddp = DistributedDataParallel(net, find_unused_parameters=False)
    x, labels = (t.chunk(world)[rank] for t in batch())

    freeze_batch_norm(net)
    F.cross_entropy(ddp(x), labels).backward()
    frozen = gradients(net)

    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    optimizer.step()
    optimizer.zero_grad()
    net.train()
    F.cross_entropy(ddp(x), labels).backward()
    torch.save({'frozen': frozen, 'training': gradients(net), 'weights': net.state_dict()}, out)
    dist.destroy_process_group()


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
