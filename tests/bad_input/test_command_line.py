"""Mistakes in a command line."""

from __future__ import annotations

import pytest

from tests.bad_input.refusing import case

RANGE = "a number from 0 up to, not including, 1"
SETS = "valid: cifar10, cifar100, coco, digits, fashion-mnist, fashion-scenes, imagenet, mnist, tiny-imagenet"
METHODS = "valid: asfp, asrfp, cops, dense, epruner, freezenet, ft, gmp, grasp, greg-1"

COMMANDS = [
    # id, command, words that the message must contain
    case("no-such-command", "trian", "No such command 'trian'"),
    case("no-such-option", "run --sed 1", "--sed", "--seed"),
    case("no-such-global-option", "--verison", "--verison", "--version"),
    case("option-without-value", "run --seed", "'--seed' requires an argument"),
    case("extra-argument", "run digits", "unexpected extra argument", "digits"),
    case("missing-argument", "grid", "Missing argument"),
    case("data-no-such-command", "data fecth digits", "No such command 'fecth'"),
    case("data-fetch-unknown", "data fetch cifra10", "'cifra10'", "did you mean 'cifar10'", SETS),
    case("data-beton-unknown", "data beton imagnet", "'imagnet'", "did you mean 'imagenet'", SETS),
    case("data-fetch-nothing", "data fetch", "Missing argument"),
    case("data-beton-not-there", "data beton mnist", "train-images-idx3-ubyte", "ipbench data fetch mnist"),
    case("data-make-unknown", "data make digits", "'digits'", "data set to make", "valid: fashion-scenes"),
    case("data-make-nothing", "data make", "Missing argument"),
    case("data-fetch-coco", "data fetch coco", "no folder", "train2017", "instances_{train,val}2017.json"),
    case("data-beton-boxes", "data beton fashion-scenes", "ffcv", "no boxes", "fashion-scenes", "loader memory"),
    case("data-list-word", "data list coco", "unexpected extra argument", "coco"),
    case("data-fetch-path", "data fetch ../digits", "'../digits'", SETS),
]

COUNT = [
    case("count-unknown-model", "count vgg17 --input 3x32x32", "'vgg17'", "did you mean 'vgg1", "lenet5-caffe"),
    case("count-no-input", "count vgg16", "Missing option '--input'"),
    case("count-two-sides", "count vgg16 --input 3x32", "'3x32'", "CxHxW, e.g. 3x32x32"),
    case("count-zero", "count vgg16 --input 0x32x32", "'0x32x32'", "CxHxW"),
    case("count-negative", "count vgg16 --input 3x-32x32", "'3x-32x32'", "CxHxW"),
    case("count-words", "count vgg16 --input axbxc", "'axbxc'", "CxHxW"),
    case("count-nan", "count vgg16 --input nanxnanxnan", "'nanxnanxnan'", "CxHxW"),
    case("count-side-too-large", "count vgg16 --input 3x99999x3", "'3x99999x3'", "CxHxW"),
    case("count-too-large-in-all", "count lenet-300-100 --input 4096x4096x4096", "4096x4096x4096", "at most 4194304"),
    case("count-too-small", "count vgg16 --input 3x8x8", "vgg16", "at least 32 x 32", "8 x 8"),
    case("count-channels", "count resnet18 --input 1x64x64", "resnet18", "3 channels (got 1)"),
    case("count-classes-zero", "count vgg16 --input 3x32x32 --classes 0", "--classes", "greater than or equal to 1"),
    case("count-classes-huge", "count vgg16 --input 3x32x32 --classes 1000000000000", "--classes", "100000"),
    case("count-classes-word", "count vgg16 --input 3x32x32 --classes ten", "--classes", "valid integer"),
]

RUN = [
    case("dataset-typo", "run --dataset digit", "'digit'", "--dataset", "did you mean 'digits'", SETS),
    case("dataset-case", "run --dataset DIGITS", "'DIGITS'", SETS),
    case("dataset-empty", ["run", "--dataset", ""], "''", "--dataset", SETS),
    case("dataset-long", ["run", "--dataset", "d" * 5000], "ddddd", SETS),
    case("dataset-not-there", "run --dataset cifar10", "data_batch_1.bin", "ipbench data fetch cifar10"),
    case("model-typo", "run --model smal-vgg", "'smal-vgg'", "--model", "did you mean 'small-vgg'"),
    case("model-empty", ["run", "--model", ""], "unknown model ''", "small-vgg"),
    case("model-too-large-for-the-images", "run --model vgg16", "vgg16", "at least 32 x 32", "8 x 8"),
    case("method-typo", "run --method snap", "'snap'", "did you mean 'snip'", METHODS),
    case("method-newline", ["run", "--method", "snip\nrun"], "'snip\\nrun'", METHODS),
    case("space", "run --space xp", "space", "'xp'", "'sp' or 'ip'"),
    case("space-case", "run --space IP", "'IP'", "'sp' or 'ip'"),
    case("off", "run --off half", "off", "'half'", "'zero', 'frozen' or 'decayed'"),
    case("off-empty", ["run", "--off", ""], "off", "(got '')", "'zero', 'frozen' or 'decayed'"),
    case("allocation", "run --allocation local", "allocation", "'local'", "'global', 'uniform' or 'erk'"),
    case("pattern", "run --pattern filter", "pattern", "one of coefficients, filters", "(got 'filter')"),
    case("pattern-empty", ["run", "--pattern", ""], "pattern", "one of coefficients, filters"),
    case("pattern-sparsity", "run --pattern 2:4 --sparsity 0.4", "pattern 2:4 has sparsity 0.5", "not 0.4"),
    case("pattern-of-dense", "run --method dense --pattern filters", "--pattern", "dense does not prune"),
    case("pattern-of-cops", "run --method cops --pattern channels", "method cops", "single coefficients"),
    case("budget", "run --budget flops", "budget", "'flops'", "'parameters', 'macs' or 'channels'"),
    case("budget-of-coefficients", "run --budget macs", "budget macs has no meaning for pattern coefficients"),
    case("budget-of-dense", "run --method dense --budget macs", "--budget", "dense does not prune"),
    case("mode", "run --mode exact", "mode", "'exact'", "'strict' or 'fast'"),
    case("loader", "run --loader magic", "'magic'", "--loader", "valid: ffcv, memory"),
    case("device", "run --device tpu", "'tpu'", "auto, cpu, cuda"),
    case("device-not-here", "run --device cuda:99", "'cuda:99'", "GPUs"),
    case("device-without-memory", "run --device meta", "'meta'", "auto, cpu, cuda"),
    case("threads-negative", "run --threads -1", "--threads", "greater than or equal to 0"),
    case("threads-many", "run --threads 5000", "--threads", "less than or equal to 1024"),
    case("threads-nan", "run --threads nan", "--threads", "valid integer"),
    case("workers-zero", "run --workers 0", "--workers", "greater than or equal to 1"),
    case("sparsity-one", "run --sparsity 1", "sparsity", RANGE, "(got '1')"),
    case("sparsity-negative", "run --sparsity -0.1", RANGE, "'-0.1'"),
    case("sparsity-nan", "run --sparsity nan", RANGE, "'nan'"),
    case("sparsity-inf", "run --sparsity inf", RANGE, "'inf'"),
    case("sparsity-1e400", "run --sparsity 1e400", RANGE, "'1e400'"),
    case("sparsity-tiny", "run --sparsity 1e-99999999999", "at most 12 decimals", "1e-99999999999"),
    case("sparsity-rounds-to-one", f"run --sparsity 0.{'9' * 32}", "at most 12 decimals"),
    case("sparsity-decimal-comma", "run --sparsity 0,5", RANGE, "'5'"),
    case("sparsity-commas", "run --sparsity 0.5,,0.9", "--sparsity", "'0.5,,0.9'", "between two commas"),
    case("sparsity-percent", "run --sparsity 90%", RANGE, "'90%'"),
    case("sparsity-empty", ["run", "--sparsity", ""], RANGE),
    case("sparsity-twice", "run --sparsity .5 --sparsity 0.50", "--sparsity", "twice"),
    case("sparsity-of-dense", "run --method dense --sparsity 0.5", "--sparsity", "dense does not prune"),
    case("seed-negative", "run --seed -1", "seed", "greater than or equal to 0", "-1"),
    case("seed-too-large", "run --seed 4294967296", "less than 4294967296"),
    case("seed-float", "run --seed 1.0", "--seed", "'1.0' is not a whole number"),
    case("seed-nan", "run --seed nan", "--seed", "'nan' is not a whole number"),
    case("seed-of-5000-digits", ["run", "--seed", "9" * 5000], "--seed", "not a whole number"),
    case("seed-twice", "run --seed 1 --seed 1", "--seed", "twice"),
    case("method-file-not-there", "run --method-file gone.py", "gone.py: no such file"),
    case("method-file-empty", ["run", "--method-file", ""], "''", ".py"),
    case("out-is-a-file", "run --out f", "f/state", "not written", "Not a directory", files={"f": ""}),
    case("data-is-a-file", "run --data f --dataset mnist", "f/MNIST/raw", "data fetch mnist", files={"f": ""}),
]

#: What Python's `int` and `float` take, and nobody means.
SPELLINGS = {"underscore": "1_0", "arabic": "\u0661", "wide": "\uff11", "blanks": " 1 ", "plus": "+1", "zeros": "001",
             "exponent": "1e1", "point": "1.0", "hex": "0x1", "nothing": ""}  # fmt: skip
NUMBERS = [
    *(
        case(f"{command.split()[0]}{option}-{name}", [*command.split(), option, word], option, "not a valid integer")
        for command, option in (
            ("run", "--workers"), ("run", "--threads"), ("count vgg16 --input 3x32x32", "--classes"),
            ("grid x.yaml", "--seeds-per-job"), ("lease --gpus 0 true", "--count"), ("verify r", "--sample"),
        )
        for name, word in SPELLINGS.items()
    ),
    *(
        case(f"seed-{name}", ["run", "--seed", word], "--seed", "not a whole number")
        for name, word in SPELLINGS.items()
    ),
    *(
        case(f"input-{name}", ["count", "vgg16", "--input", f"3x32x{word}"], "CxHxW")
        for name, word in SPELLINGS.items()
    ),
    *(
        case(f"sparsity-{name}", ["run", "--sparsity", word], RANGE)
        for name, word in {"underscore": "0.9_0", "arabic": "\u0660.\u0665", "blanks": " 0.5 ", "plus": "+0.5"}.items()
    ),
    case("beta-underscore", "run --method cops --option beta='0.5,0.5_0' --option controls=synflow,grasp", "beta is"),
]  # fmt: skip

#: The empty path is the folder one is in: a shell's variable that is not set.
EMPTY = [
    case(f"{words.replace(' --', '-').replace(' ', '-')}-empty", [*words.split(), ""], "an empty path")
    for words in (
        "run --out", "run --data", "run --done", "grid x.yaml --out", "collect", "tables", "figures", "summary",
        "verify", "verify r --data", "data fetch digits --data", "data beton digits --data", "inspect", "pack",
        "pack r --out",
        "unpack", "unpack r --out", "slice", "slice r --to", "slice r --to o --onnx",
    )
]  # fmt: skip

#: Of `ipbench run --recipe`: value, words.
RECIPE = [
    case(f"recipe-{name}", ["run", "--recipe", word], *says)
    for name, word, *says in [
        ("no-value", "epochs", "--recipe", "'epochs'", "NAME=VALUE"),
        ("no-name", "=3", "'=3'", "NAME=VALUE"),
        ("unknown", "epoch=1", "'epoch'", "did you mean 'epochs'", "batch_size"),
        ("unknown-inside", "augmentation.flop=1", "'flop'", "did you mean 'flip'", "cutout"),
        ("no-mapping", "augmentation=3", "augmentation", "a mapping of keys to values (got 3)"),
        ("too-deep", "augmentation.flip.x=1", "'flip.x'", "did you mean 'flip'"),
        ("empty-value", "epochs=", "epochs", "valid integer (got None)"),
        ("epochs-zero", "epochs=0", "epochs", "greater than or equal to 1 (got 0)"),
        ("epochs-many", "epochs=10001", "epochs", "less than or equal to 10000"),
        ("epochs-fraction", "epochs=1.5", "epochs", "valid integer", "1.5"),
        ("epochs-bool", "epochs=true", "epochs", "valid integer (got True)"),
        ("epochs-text", "epochs='3'", "epochs", "valid integer (got '3')"),
        ("epochs-word", "epochs=twenty", "epochs", "valid integer (got 'twenty')"),
        ("epochs-octal", "epochs=010", "epochs", "valid integer (got '010')"),
        ("epochs-huge", f"epochs={'9' * 5000}", "epochs", "valid integer"),
        ("epochs-list", "epochs=[1, 2]", "epochs", "valid integer (got [1, 2])"),
        ("lr-nan", "lr=.nan", "lr", "finite number (got nan)"),
        ("lr-inf", "lr=.inf", "lr", "finite number (got inf)"),
        ("lr-1e400", "lr=1e400", "lr", "finite number"),
        ("lr-word", "lr=nan", "lr", "valid number (got 'nan')"),
        ("lr-bool", "lr=true", "lr", "valid number (got True)"),
        ("lr-zero", "lr=0", "lr", "greater than 0 (got 0)"),
        ("lr-negative", "lr=-1", "lr", "greater than 0 (got -1)"),
        ("lr-base-60", "lr=1:30", "lr", "valid number (got '1:30')"),
        ("lr-date", "lr=2024-13-45", "lr", "valid number (got '2024-13-45')"),
        ("lr-digits", f"lr={'9' * 400}", "lr", "valid number"),
        ("momentum", "momentum=1", "momentum", "less than 1"),
        ("gamma", "gamma=0", "gamma", "greater than 0"),
        ("label-smoothing", "label_smoothing=1", "label_smoothing", "less than 1"),
        ("nesterov-number", "nesterov=2", "nesterov", "true or false (got 2)"),
        ("cutout-bool", "augmentation.cutout=true", "augmentation.cutout", "valid integer (got True)"),
        ("translate-negative", "augmentation.translate=-1", "translate", "greater than or equal to 0"),
        ("translate-out-of-sight", "augmentation.translate=8", "translate is 8", "8 x 8", "at most 7"),
        ("crop-of-one-size", "augmentation.random_resized_crop=true", "random_resized_crop", "8 x 8"),
        ("milestones-number", "milestones=0.5", "milestones", "a list (got 0.5)"),
        ("milestones-twice", "milestones=[0.5, 0.5]", "milestones must increase", "0.5"),
        ("milestones-above-one", "milestones=[1.5]", "milestones", "less than 1 (got 1.5)"),
        ("schedule", "schedule=linear", "schedule", "'step', 'cosine' or 'constant'", "'linear'"),
        ("init", "init=normal", "init", "'kaiming_normal'", "'normal'"),
        ("precision", "precision=fp8", "precision", "'float32' or 'bf16'", "'fp8'"),
        ("warmup-longer-than-the-training", "warmup=30", "warmup (30 epochs)", "the training (8 epochs)"),
        ("validation-all", "validation=1", "validation", "less than 1"),
        ("train-examples-one", "train_examples=1", "train_examples", "greater than or equal to 2"),
        ("train-examples-many", "train_examples=1501", "train_examples is 1501", "only 1500"),
        ("batch-size-one", "batch_size=1", "batch_size", "greater than or equal to 2"),
        ("batch-size-of-more-than-all", "batch_size=1351", "batch_size is 1351", "only 1350 images"),
        ("tag", "lr=!!python/object/apply:os.system ['touch x']", "lr", "tag", "plain value"),
        ("anchor", "lr=&a [*a]", "lr", "anchors", "write the value out"),
        ("unfinished", "lr=[", "lr", "not readable"),
        ("deep", "lr=" + "[" * 1000, "lr", "nested too deeply"),
        ("nul", "lr=\0", "lr", "special characters"),
    ]
] + [
    case("recipe-twice", "run --recipe lr=1 --recipe lr=2", "--recipe: lr is given twice"),
    case(
        "recipe-contradicts-itself", "run --recipe augmentation=x --recipe augmentation.flip=true",
        "augmentation and augmentation.flip contradict",
    ),
    case("recipe-nesterov-without-momentum", "run --recipe nesterov=true --recipe momentum=0", "momentum above 0"),
]  # fmt: skip

#: Of `ipbench run --method METHOD --option`: method, value, words.
OPTIONS = [
    case(f"option-{name}", ["run", "--method", method, "--option", word], *says)
    for name, method, word, *says in [
        ("unknown", "snip", "round=1", "'round'", "did you mean 'rounds'", "valid: per_class, rounds"),
        ("rounds-zero", "snip", "rounds=0", "rounds=0", "rounds is 1 or more"),
        ("rounds-many", "synflow", "rounds=1000000000", "rounds is 1 or more, up to 100000", "1000000000"),
        ("rounds-fraction", "snip", "rounds=1.5", "of type int, not 1.5", "its default is 1"),
        ("rounds-bool", "snip", "rounds=true", "of type int, not True"),
        ("rounds-text", "snip", "rounds='3'", "of type int, not '3'"),
        ("rounds-list", "snip", "rounds=[1, 2]", "of type int, not [1, 2]"),
        ("rounds-null", "snip", "rounds=", "of type int, not None"),
        ("per-class-negative", "snip", "per_class=-1", "per_class 0 or more", "per_class=-1"),
        ("per-class-many", "snip", "per_class=1000", "1000 images per class", "only"),
        ("temperature-nan", "grasp", "temperature=.nan", "of type float, not nan"),
        ("temperature-inf", "grasp", "temperature=.inf", "of type float, not inf"),
        ("temperature-huge", "grasp", "temperature=1e400", "of type float, not inf"),
        ("temperature-zero", "grasp", "temperature=0", "temperature is above 0 (got 0)"),
        ("scaled-word", "magnitude", "scaled=maybe", "of type bool, not 'maybe'"),
        ("rate-one", "lt", "rate=1", "rate is from 0.05 up to, not including, 1"),
        ("rate-zero", "lt", "rate=0", "rate is above 0"),
        ("rate-small", "lt", "rate=0.01", "rate is from 0.05", "rate=0.01"),
        ("rewind-behind-the-end", "lt", "rewind=8", "rewinding to epoch 8", "a training of 8 epochs"),
        ("rewind-negative", "lt", "rewind=-1", "epoch 0 or later"),
        ("until-before-start", "gmp", "start=0.9", "0 <= start < until <= 1", "start=0.9"),
        ("every-zero", "gmp", "every=0", "every is 1 or more"),
        ("every-beyond-the-training", "rigl", "every=4000", "in a training of 168 steps", "every 4000 steps",
         "an interval from 1 to 125 steps is valid"),
        ("pruned-at-once", "gmp", "every=126", "every 126 steps", "from step 0 to 126", "an interval from 1 to 125"),
        ("fraction", "rigl", "fraction=2", "0 < fraction <= 1", "fraction=2"),
        ("ft-epochs", "ft", "epochs=-1", "epochs is from 0 to 10000", "epochs=-1"),
        ("ft-epochs-many", "ft", "epochs=100000", "epochs is from 0 to 10000"),
        ("ft-lr", "ft", "lr=0", "lr above 0", "lr=0"),
        ("cops-target", "cops", "target=snap", "'snap'", "did you mean 'snip'"),
        ("cops-target-no-score", "cops", "target=rigl", "rigl is no score"),
        ("cops-itself", "cops", "target=cops", "cops is no score"),
        ("cops-twice", "cops", "controls='synflow,synflow'", "synflow is given twice"),
        ("cops-beta-above-one", "cops", "beta=2", "share from 0 to 1", "'2'"),
        ("cops-beta-word", "cops", "beta=x", "share from 0 to 1", "'x'"),
        ("cops-betas", "cops", "beta='0.5,0.5'", "1 controls", "0.5,0.5"),
        ("newline", "cops", r'target="snip\nx"', "of type str"),
    ]
] + [
    case("option-twice", "run --option rounds=1 --option rounds=2", "--option: rounds is given twice"),
    case("option-of-dense", "run --method dense --option rounds=1", "'rounds'", "dense"),
]  # fmt: skip

BASIS = [
    case(f"basis-{name}", ["run", "--space", "ip", "--basis", word], *says)
    for name, word, *says in [
        ("unknown", "shared=layer", "'shared'", "valid: init, large_kernels, lr, sharing"),
        ("sharing", "sharing=all", "sharing", "'layer', 'stage' or 'network'", "'all'"),
        ("init", "init=random", "init", "'standard' or 'orthonormal'", "'random'"),
        ("lr-zero", "lr=0", "lr", "greater than 0"),
        ("lr-bool", "lr=true", "lr", "valid number (got True)"),
        ("lr-nan", "lr=.nan", "lr", "finite number"),
        ("train", "train=maybe", "train", "true or false (got 'maybe')"),
        ("weight-decay", "weight_decay=-1", "weight_decay", "greater than or equal to 0"),
    ]
] + [case("basis-in-sp", "run --basis lr=2", "basis belongs to space ip")]

CASES = [*COMMANDS, *COUNT, *RUN, *NUMBERS, *EMPTY, *RECIPE, *OPTIONS, *BASIS]


@pytest.mark.parametrize("bad", CASES, ids=str)
def test_one_line_and_no_file(bad, refuses):
    refuses(bad)
