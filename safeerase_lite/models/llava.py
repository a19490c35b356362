"""A vision-language model: loaded, quantised, adapted, and used without its adapter.

The same code loads the tiny models, `llava-hf/llava-1.5-7b-hf` and every family of `anatomy.py`.
"""

import json
import os
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils import load_peft_weights, set_peft_model_state_dict
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    GenerationConfig,
)
from transformers.utils import logging as transformers_logging

from safeerase_lite.config import Config, read_injected
from safeerase_lite.tinyworld import shipped_model
from safeerase_lite.utils import UserError, expects, is_interactive

from .anatomy import Anatomy, anatomy_of, on_tower
from .inputs import blank, encode_text, image_tokens
from .pretrained import check_file, is_local, load_weights, one_line
from .processors import load_processor

LEARNING, INJECTED = "default", "injected"  # the adapter that is trained, the frozen one under it
SCALE = ("r", "lora_alpha", "use_rslora", "alpha_pattern")  # of LoRA's product; no weight tells it


@expects
def load_model(config: Config, *, adapt: bool = True):
    """Load a model as a config says: NF4 with double quantisation (or dense), LoRA on top.

    Args:
        config: model, precision, compute type, LoRA numbers, seed. A model with injected knowledge
            is its base and the injected adapter, frozen.
        adapt: add a fresh LoRA adapter to the language model, seeded by the config (and train the
            projector beside it, when the config says so).

    Returns:
        The model in evaluation mode, on its process's GPU if there is one, its processor at
        `.processor`.

    Raises:
        UserError: no such model, a malformed or incomplete one, a processor that does not fit it,
            or a quantisation or adapter that did not take effect.
    """
    knowledge = read_injected(config.model)
    name = knowledge.base if knowledge else config.model
    path = str(shipped_model(name) or name)
    nf4 = available_precision(config.precision) == "nf4"
    dtype = compute_dtype(config)
    if shipped_model(name) or not is_interactive():
        transformers_logging.disable_progress_bar()
    with one_line(f"cannot load the model {name!r}"):
        local = is_local(path)
        described = AutoConfig.from_pretrained(path, local_files_only=local)
        anatomy = anatomy_of(described)
        kept = getattr(described, "quantization_config", None) is not None  # see `quantised`
        if kept and not nf4:
            raise UserError("its weights are 4-bit, so its precision is 'nf4'")
        quantise = {}  # even None as quantization_config would hide what was kept
        if nf4 and not kept:
            quantise["quantization_config"] = nf4_config(dtype, skip=anatomy.not_quantised)
        processor = load_processor(path, described, local_files_only=local)
        encode_text(processor, ["What?", "What is it?"], ["This.", "That."])
        model = load_weights(
            AutoModelForImageTextToText,
            path,
            dtype=dtype,
            **quantise,
            device_map=device_map(),
            local_files_only=local,
        )
        _check_tokens(model, processor.tokenizer)
        _check_picture(model.model, processor)
    # How answers are decoded is said where they are; a model's own settings would be mixed in.
    model.generation_config = GenerationConfig(
        eos_token_id=processor.tokenizer.eos_token_id, pad_token_id=processor.tokenizer.pad_token_id
    )
    if nf4:
        _prepare_4bit(model, dtype)
        _check_quantised(model, anatomy)
    if adapt:
        model = _adapt(model, config, anatomy)
    if knowledge:
        model = _add_injected(model, knowledge.folder)
    model.processor = processor
    if adapt:
        model.loaded_with = config
        model.initial_adapter = {name: p.detach().clone() for name, p in trainable(model).items()}
    return model.eval()


def _check_tokens(model: nn.Module, tokenizer) -> None:
    """Every token has an embedding."""
    last, rows = max(tokenizer.get_vocab().values()), model.get_input_embeddings().num_embeddings
    if last >= rows:
        raise UserError(f"its tokenizer has tokens up to {last}, and the model embeds {rows}")


def _check_picture(core: nn.Module, processor) -> None:
    """A picture takes as many tokens in a prompt as the model puts there, and is of numbers.

    Otherwise each row of a batch would read the features of the next, which nothing reports.
    """
    with torch.no_grad():
        features = core.get_image_features(**on_tower(core, blank(processor).tensors)).pooler_output
    features = torch.cat([one.flatten(0, -2) for one in features])
    if not features.isfinite().all():
        raise UserError(
            "its vision tower gives NaN or infinity: correct image_mean, image_std or "
            "rescale_factor in its processor_config.json"
        )
    if (taken := image_tokens(processor)) != len(features):
        raise UserError(
            f"its processor gives a picture {taken} tokens, and its vision tower {len(features)}: "
            "correct patch_size, num_additional_image_tokens or vision_feature_select_strategy in "
            "its processor_config.json"
        )


def device_map() -> dict[str, int] | None:
    """A device map that puts a model on this process's GPU; None without a GPU.

    `torchrun` numbers the processes of a machine, and Accelerate assigns the GPUs in this order.
    """
    if not torch.cuda.is_available():
        return None
    return {"": int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count()}


# ---- precision ----


def compute_dtype(config: Config) -> torch.dtype:
    """The type a config is computed in here. float16 becomes bfloat16 without a GPU, because no
    loss scaling fits the gradients into float16 there; bfloat16 becomes float32 on a CPU that is
    slower in it."""
    if torch.cuda.is_available() or config.compute == "float32":
        return getattr(torch, config.compute)
    if config.compute == "bfloat16" and not cpu_has_bfloat16():
        return torch.float32
    return torch.bfloat16


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies matrices in bfloat16 by instructions of its own (AMX).

    With them a layer of SmolVLM-256M took a seventh of its time in float32, without them five to
    eight times as long; with AVX512-BF16 alone one and a half times (one core, 800 rows).
    """
    return getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16", False)


def nf4_config(dtype: torch.dtype, *, skip: list[str] | None) -> BitsAndBytesConfig:
    """NF4 with double quantisation, computing in `dtype`; `skip` names modules that stay dense
    (None: the output head alone)."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skip,
    )


def why_not_4bit() -> str:
    """Why nothing can be 4-bit on this machine; empty when it can."""
    try:
        import bitsandbytes  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        reason = (str(error).splitlines() or ["no message"])[0]
        return f"no working bitsandbytes here ({reason})"
    return ""


def available_precision(precision: str) -> str:
    """The precision requested; dense, with a warning, where bitsandbytes does not work."""
    if precision == "nf4" and (reason := why_not_4bit()):
        warnings.warn(f"{reason}: loading dense", stacklevel=3)
        return "dense"
    return precision


def _four_bit(model: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in model.named_modules() if type(m).__name__ == "Linear4bit"}


def _prepare_4bit(model: nn.Module, dtype: torch.dtype) -> None:
    """Compute in `dtype`, whatever kept weights were saved with, and prevent bitsandbytes from
    repacking 4-bit weights in a CPU forward pass in evaluation mode.

    On processors with AVX512-BF16 a repacked layer has no gradient afterwards, even in training
    mode again, and nothing reports it.
    """
    for module in _four_bit(model).values():
        module.compute_dtype = dtype
        module.support_avx512bf16_for_cpu = False


def _check_quantised(model: nn.Module, anatomy: Anatomy) -> None:
    """Every linear layer of the language model is 4-bit, and nothing else is."""
    expected = {name for name, _ in model.named_modules() if anatomy.is_adapted(name)}
    odd = sorted(set(_four_bit(model)) ^ expected)[:3]
    if odd or not expected:
        problem = ", ".join(odd) or "no layer is 4-bit"
        raise UserError(f"quantisation did not take effect as asked: {problem}")


# ---- adapters ----


def _adapt(model: nn.Module, config: Config, anatomy: Anatomy) -> PeftModel:
    torch.manual_seed(config.seed)
    trains_projector = config.projector == "trained"
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=anatomy.lora_targets,
        modules_to_save=[anatomy.projector] if trains_projector else None,
    )
    model.requires_grad_(False)
    with quiet_peft():
        adapted = get_peft_model(model, lora)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if config.gradient_checkpointing:
        base = adapted.base_model.model
        enable = getattr(base, "activation_checkpointing_enable", None)  # since transformers 5.23
        (enable or base.gradient_checkpointing_enable)({"use_reentrant": False})
    _check_adapted(adapted, anatomy, trains_projector)
    return adapted


def _check_adapted(model: PeftModel, anatomy: Anatomy, trains_projector: bool) -> None:
    """LoRA is on every linear layer of the language model, and nothing else is trainable."""
    base = model.base_model.model
    lora = {name for name, module in base.named_modules() if hasattr(module, "lora_A")}
    expected = {name for name, _ in base.named_modules() if anatomy.is_adapted(name)}
    unexpected = [
        name
        for name, parameter in base.named_parameters()
        if parameter.requires_grad
        and "lora_" not in name
        and not (trains_projector and f"{anatomy.projector}.modules_to_save" in name)
    ]
    odd = [*sorted(lora ^ expected), *unexpected][:3]
    if odd or not lora:
        problem = ", ".join(odd) or "no layer has it"
        raise UserError(f"LoRA did not take effect as asked: {problem}")


@contextmanager
def quiet_peft():
    """PEFT asks transformers by a name that is deprecated, which warns each time."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def add_adapter(model: nn.Module, folder: Path, name: str) -> PeftModel:
    """The model with the adapter of `folder` on it, under a name.

    PEFT starts a weight that is not on disk at zero and ignores one that has no place, silently.

    Raises:
        UserError: as `trained_weights`; or the adapter does not fit.
    """
    weights = trained_weights(folder)
    with quiet_peft(), one_line(f"cannot load the adapter in {folder}"):
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter_name=name)
        else:
            model = PeftModel.from_pretrained(model, str(folder), adapter_name=name)
    if adapter_weights(model, name).keys() != weights.keys():
        raise UserError(f"the adapter in {folder} does not fit its base model: make it again")
    return model


def _add_injected(model: nn.Module, folder: Path) -> PeftModel:
    """The model with the injected adapter of `folder`, frozen, under the trained one, if any."""
    model = add_adapter(model, folder, INJECTED)
    for module in model.modules():
        if INJECTED in getattr(module, "lora_dropout", ()):
            module.lora_dropout[INJECTED] = nn.Identity()  # in training mode too
    _activate_all(model)
    return model


def _activate_all(model: PeftModel) -> None:
    """Both adapters are active, and the injected one stays frozen."""
    model.base_model.set_adapter(
        [name for name in (INJECTED, LEARNING) if name in model.peft_config]
    )
    model.set_requires_grad(INJECTED, False)


@contextmanager
def reference(model: PeftModel):
    """The model as it was before unlearning: its adapter off, no second copy in memory.

    A trained projector is restored too, because it is one of the adapter's saved modules. Injected
    knowledge stays: it was there before.
    """
    if INJECTED not in model.peft_config:
        with model.disable_adapter():
            yield model
        return
    model.base_model.set_adapter([INJECTED], inference_mode=True)
    try:
        yield model
    finally:
        _activate_all(model)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that unlearning changes, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def reset_adapter(model: PeftModel) -> PeftModel:
    """Put a model's adapter back to its first weights, those that `load_model` drew."""
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter.copy_(model.initial_adapter[name])
    return model


def negate_adapter(model: PeftModel) -> None:
    """Subtract from the model what its adapter adds: θ₀ + (θ − θ₀) becomes θ₀ − (θ − θ₀).

    LoRA adds a product B·A, so B alone changes its sign; a trained projector is mirrored at its
    first weights.
    """
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            if "lora_A" not in name:
                parameter.copy_(2 * model.initial_adapter[name] - parameter)


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the trained adapter alone, in PEFT's format, weights as safetensors."""
    model.save_pretrained(
        str(folder),
        safe_serialization=True,
        selected_adapters=[LEARNING],
        save_embedding_layers=False,  # "auto" would ask a hub for the base's configuration
    )
    (folder / "README.md").unlink(missing_ok=True)


def load_adapter(model: PeftModel, folder: Path) -> None:
    """Put a finished run's adapter into a freshly adapted model.

    Raises:
        UserError: as `trained_weights`; or the adapter does not fit, or is scaled otherwise.
    """
    weights = trained_weights(folder)
    misfit = f"the adapter in {folder} does not fit this model"
    trained = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    for name in SCALE:
        own = getattr(model.peft_config[LEARNING], name)
        if trained.get(name, own) != own:
            raise UserError(f"{misfit}: its {name} is {trained[name]}, the model's {own}")
    try:
        result = set_peft_model_state_dict(model, weights)
    except (KeyError, RuntimeError) as error:  # a part that is not there, a shape that differs
        raise UserError(f"{misfit}: {str(error).splitlines()[-1].strip()}") from None
    missing = [key for key in result.missing_keys if "lora_" in key and INJECTED not in key]
    if odd := [*result.unexpected_keys, *missing]:
        raise UserError(f"{misfit}: {odd[0]}")
    taken = len(adapter_weights(model))
    if taken != len(weights):  # a projector's weights are dropped silently where it is frozen
        raise UserError(f"{misfit}: it has {len(weights)} weights, the model takes {taken}")


def adapter_weights(model: PeftModel, name: str = LEARNING) -> dict[str, torch.Tensor]:
    """An adapter's weights, by the names they have on disk; the Hub is not queried."""
    return get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)


def trained_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of an adapter on disk, by name.

    Raises:
        UserError: the adapter is not there, not complete, not finite, or untrained.
    """
    with one_line(f"cannot load the adapter in {folder}"):
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            if not (folder / name).exists():
                raise UserError(f"it holds no {name}: unlearn that run first")
            check_file(folder / name)
        weights = load_peft_weights(str(folder), device="cpu")
    if all(not w.any() for key, w in weights.items() if "lora_B" in key):
        raise UserError(f"the adapter in {folder} is untrained: every LoRA B is zero")
    return weights
