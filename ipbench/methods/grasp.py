"""GraSP: gradient signal preservation."""

from ipbench.errors import BadInput
from ipbench.methods import before_training, cross_entropy, method


@method(
    when=before_training(per_class=10), task="classification",
    paper="Wang, Zhang, Grosse: GraSP, ICLR 2020, arXiv:2002.07376",
)  # fmt: skip
def grasp(net, batch, *, temperature: float = 200.0):
    """c * (H g): keep what the norm of the gradient would suffer from losing (sec. 4, with the sign turned round).

    The first-order change of the squared gradient norm when a coefficient is taken away is -c * (H g), with the
    gradient g and the Hessian H of the loss on a batch with as many images of each class.

    Options:
        temperature: divides the logits
    """
    if temperature <= 0:
        raise BadInput(f"method grasp: temperature is above 0 (got {temperature:g})")

    if net.task != "classification":
        raise BadInput(f"method grasp: it divides logits by a temperature, and a net for {net.task} has other outputs")

    def gradients(part):
        return net.gradients(cross_entropy(net.logits(part) / temperature, part.labels), create_graph=True)

    def products(part):
        # The gradient of <g, stop(g)> is H g: one more backward pass instead of a Hessian.
        return net.gradients(sum((g * whole[name]).sum() for name, _, g in gradients(part)))

    whole = {name: g.detach() for name, _, g in net.averaged(gradients, batch)}  # of all images, whatever the pass
    return {name: c * hg for name, c, hg in net.averaged(products, batch)}
