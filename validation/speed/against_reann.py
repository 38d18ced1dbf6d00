"""Child of ``run.py`` that runs the published PyTorch code in its own virtual environment, one thread, float64.

    PYTHON against_reann.py FOLDER      (FOLDER holds the published ``reann/``)

One JSON request a line on stdin, one JSON answer a line on stdout:

    {"prepare": WHAT, "specification": {...}, "arrays": FILE.npz}  ->  {QUANTITY: its numbers}
    {"loops": N}                                                   ->  {"seconds"} of N calls

WHAT is ``forces``: the energy model scripted by torch.jit with forces by autograd, as the package's own calculator has
it; or ``gradient``: that of an energy + force loss by two reverse passes, as its training has it.  A process does one
of them only: what ran before decides how the C library's allocator treats what follows.  The parameters are ours, so
it must give our numbers.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

#: Calls before any clock starts: the scripted model is optimised in the first ones.
WARM_UP = 4
INPUT_NN = """nl={widths}
nblock={blocks}
dropout_p={no_dropout}
activate='Relu_like'
table_norm=False
oc_loop={recursions}
oc_nl={oc_widths}
oc_nblock={oc_blocks}
oc_dropout_p={oc_no_dropout}
oc_activate='Relu_like'
oc_table_norm=False
norbit={densities}
"""
INPUT_DENSITY = """cutoff={cutoff}
nipsin={max_degree}
nwave={radial}
atomtype={elements}
neigh_atoms=1
"""


def inputs_of(spec):
    """The texts of its two input files."""
    net, oc_net = spec["network"], spec["recursion_network"]
    values = spec | {"elements": list(spec["elements"]), "widths": net["widths"], "oc_widths": oc_net["widths"]}
    values |= {"blocks": net["blocks"], "oc_blocks": oc_net["blocks"]}
    values |= {"no_dropout": [0.0] * len(net["widths"]), "oc_no_dropout": [0.0] * len(oc_net["widths"])}
    return INPUT_NN.format(**values), INPUT_DENSITY.format(**values)


def inference_model(spec):
    """Its model for use: reads its two input files from the working directory."""
    from pes.PES import PES

    Path("para").mkdir(exist_ok=True)
    for name, text in zip(("input_nn", "input_density"), inputs_of(spec)):
        (Path("para") / name).write_text(text)
    return PES().double()


def training_model(spec):
    """Its model for training, put together as its training script does."""
    from src.activate import Relu_like
    from src.density import GetDensity
    from src.MODEL import NNMod
    from src.Property_force import Property

    elements, radial, n = spec["elements"], spec["radial"], len(spec["elements"])

    def networks(shape, outputs):
        widths = [spec["densities"], *shape["widths"]]
        no_dropout = np.zeros(len(shape["widths"]))
        return NNMod(n, outputs, elements, shape["blocks"], widths, no_dropout, Relu_like, table_norm=False)

    messages = [networks(spec["recursion_network"], radial) for _ in range(spec["recursions"])]
    start = torch.ones(n, radial)
    density = GetDensity(start, start.clone(), spec["cutoff"], 1, spec["max_degree"] + 1, spec["densities"], messages)
    return Property(density, [networks(spec["network"], 1)]).double()


def set_parameters(model, spec, arrays):
    """Our parameters in its places (its linear maps are the other way round, its exponents have the other sign)."""
    density = model.density
    places = [
        (density.rs, arrays["radial_centers"]),
        (density.inta, -arrays["radial_exponents"]),
        (density.params, arrays["orbital_coefficients"]),
        (density.hyper, arrays["contraction"]),
    ]
    rows = [(model.nnmod, "network.{}", spec["network"])]
    for t, message in enumerate(density.ocmod.values()):
        rows.append((message, f"recursion.{t}.{{}}", spec["recursion_network"]))
    for networks, name, shape in rows:
        links = [f"block.{b}.{i}" for b in range(shape["blocks"]) for i in range(len(shape["widths"]))]
        for element, network in networks.elemental_nets.items():
            prefix = name.format(element)
            parts = network.modules()
            for link in ["input", *links, "output"]:
                # An activation with learned parameters stands before every linear map but the first.
                for part in parts:
                    if hasattr(part, "alpha"):
                        places.append((part.alpha, arrays[f"{prefix}.{link}.alpha"][None]))
                        places.append((part.beta, arrays[f"{prefix}.{link}.beta"][None]))
                    elif isinstance(part, torch.nn.Linear):
                        break
                places.append((part.weight, arrays[f"{prefix}.{link}.weight"].T))
                places.append((part.bias, arrays[f"{prefix}.{link}.bias"]))
    with torch.no_grad():
        for parameter, value in places:
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))


def forces_call(spec, arrays, tensors):
    """Function that gives energy and forces."""
    model = inference_model(spec)
    set_parameters(model, spec, arrays)
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad = False
    scripted = torch.jit.script(model)
    still, shift = torch.zeros(3, 3), tensors["shift"].double()

    def call():
        positions = tensors["positions"].clone().requires_grad_(True)
        energy = scripted(tensors["cell"], still, positions, tensors["pairs"], shift, tensors["species"])
        return {"energy": energy, "forces": -torch.autograd.grad([energy], [positions])[0]}

    return call


def gradient_call(spec, arrays, tensors):
    """Function that gives the gradient of the loss; the contraction's part of it stands for all."""
    model = training_model(spec)
    set_parameters(model, spec, arrays)
    n_atoms = len(tensors["positions"])
    batch = (torch.tensor([n_atoms]), tensors["species"][None], tensors["pairs"][:, None])
    image = -(tensors["shift"].double() @ tensors["cell"])[None]

    def call():
        for parameter in model.parameters():
            parameter.grad = None
        energy, forces = model(tensors["positions"].clone()[None], *batch, image)
        energy_error, force_error = energy - tensors["energy"], forces.view(-1, 3) - tensors["forces"]
        loss = (energy_error.square().sum() + force_error.square().sum() / 3.0) / n_atoms
        loss.backward()
        return {"contraction_gradient": model.density.hyper.grad}

    return call


def main():
    answers, sys.stdout = sys.stdout, sys.stderr
    sys.path.insert(0, str(Path(sys.argv[1]).resolve() / "reann"))
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    torch.set_default_dtype(torch.float64)
    makers = {"forces": forces_call, "gradient": gradient_call}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for line in sys.stdin:
            request = json.loads(line)
            if "prepare" in request:
                with np.load(request["arrays"]) as archive:
                    arrays = dict(archive)
                tensors = {name[1:]: torch.from_numpy(array) for name, array in arrays.items() if name[0] == "/"}
                call = makers[request["prepare"]](request["specification"], arrays, tensors)
                for _ in range(WARM_UP):
                    result = call()
                answer = {name: value.tolist() for name, value in result.items()}
            else:
                start = time.perf_counter()
                for _ in range(request["loops"]):
                    call()
                answer = {"seconds": time.perf_counter() - start}
            print(json.dumps(answer), file=answers, flush=True)
        os.chdir(Path(folder).parent)


if __name__ == "__main__":
    main()
