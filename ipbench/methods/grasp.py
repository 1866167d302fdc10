"""GraSP: gradient signal preservation."""

from ipbench.errors import BadInput
from ipbench.methods import before_training, cross_entropy, method


@method(when=before_training(per_class=10), paper="Wang, Zhang, Grosse: GraSP, ICLR 2020, arXiv:2002.07376")
def grasp(net, batch, *, temperature: float = 200.0):
    """c * (H g): keep what the norm of the gradient would suffer from losing (sec. 4, with the sign turned round)."""
    if temperature <= 0:
        raise BadInput(f"method grasp: temperature is above 0 (got {temperature:g})")
    loss = cross_entropy(net(batch.images) / temperature, batch.labels)
    first = net.gradients(loss, create_graph=True)
    # The gradient of <g, stop(g)> is H g: one more backward pass instead of a Hessian.
    product = sum((g * g.detach()).sum() for _, _, g in first)
    return {name: c * hg for name, c, hg in net.gradients(product)}
