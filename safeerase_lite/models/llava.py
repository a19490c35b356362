"""A LLaVA: loaded, quantised, adapted, and looked at without its adapter.

The same code loads the tiny models and `llava-hf/llava-1.5-7b-hf`.
"""

import os
import re
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils import load_peft_weights, set_peft_model_state_dict
from torch import nn
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig, LlavaProcessor
from transformers.utils import logging as transformers_logging

from safeerase_lite.config import Profile, read_injected
from safeerase_lite.tinyworld import shipped_model
from safeerase_lite.utils import UserError, is_interactive

LINEARS = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"

# The names transformers 5 gives the modules. A name it does not know is skipped silently, so
# `_check_quantised` looks at what really happened.
NOT_QUANTISED = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
LORA_TARGETS = rf"model\.language_model\..*\.({LINEARS})"
_QUANTISED = re.compile(LORA_TARGETS)

# The adapter that is trained, and the frozen one under it, if any.
LEARNING, INJECTED = "default", "injected"


def load_model(profile: Profile, *, adapt: bool = True, seed: int = 0):
    """Load a LLaVA as a profile says: NF4 with double quantisation (or dense), LoRA on top.

    Args:
        profile: model, precision, compute type, LoRA numbers. A model with injected knowledge is
            its base and the injected adapter, frozen.
        adapt: add a fresh LoRA adapter to the language model (and train the projector beside it,
            when the profile says so).
        seed: draws the adapter's first weights.

    Returns:
        The model in evaluation mode, on its process's GPU if there is one, its processor at
        `.processor`.

    Raises:
        UserError: no such model, or a quantisation or adapter that did not take.
    """
    knowledge = read_injected(profile.model)
    name = knowledge.base if knowledge else profile.model
    path = str(shipped_model(name) or name)
    precision = available_precision(profile.precision)
    dtype = compute_dtype(profile)
    if shipped_model(name) or not is_interactive():
        transformers_logging.disable_progress_bar()
    try:
        local = is_local(path)
        processor = LlavaProcessor.from_pretrained(path, local_files_only=local, backend="pil")
        model = AutoModelForImageTextToText.from_pretrained(
            path,
            dtype=dtype,
            quantization_config=nf4_config(dtype, skip=NOT_QUANTISED)
            if precision == "nf4"
            else None,
            device_map=device_map_of_this_process(),
            local_files_only=local,
            use_safetensors=True,
        )
    except (OSError, HFValidationError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot load the model {name!r}: {reason}") from None
    processor.tokenizer.padding_side = "left"
    if precision == "nf4":
        _close_cpu_gradient_trap(model)
        _check_quantised(model)
    if adapt:
        model = _adapt(model, profile, seed)
    if knowledge:
        model = _put_under(model, knowledge.folder)
    model.processor = processor
    return model.eval()


def device_map_of_this_process() -> dict[str, int] | None:
    """The device map of a model that is whole on this process's GPU; None without a GPU.

    `torchrun` numbers the processes of a machine, and Accelerate deals the GPUs out in this order.
    """
    if not torch.cuda.is_available():
        return None
    return {"": int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count()}


def compute_dtype(profile: Profile) -> torch.dtype:
    """What a profile is computed in here: bfloat16 for float16 without a GPU, where nothing scales
    a loss so that its gradients fit into float16."""
    if profile.compute == "float16" and not torch.cuda.is_available():
        return torch.bfloat16
    return getattr(torch, profile.compute)


def nf4_config(dtype: torch.dtype, *, skip: list[str] | None) -> BitsAndBytesConfig:
    """NF4 with double quantisation, computing in `dtype`; `skip` names modules that stay dense
    (None: the head alone)."""
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
    """The precision asked for; dense, with a warning, where 4-bit has no working bitsandbytes."""
    if precision == "nf4" and (reason := why_not_4bit()):
        warnings.warn(f"{reason}: loading dense", stacklevel=3)
        return "dense"
    return precision


def _close_cpu_gradient_trap(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights in a CPU forward pass in evaluation mode.

    On processors with AVX512-BF16 the repacked layer has no gradient afterwards, even in training
    mode again, and nothing says so.
    """
    for module in _four_bit(model).values():
        module.support_avx512bf16_for_cpu = False


def _four_bit(model: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in model.named_modules() if type(m).__name__ == "Linear4bit"}


def _check_quantised(model: nn.Module) -> None:
    """Every linear layer of the language model is 4-bit, and nothing else is."""
    is_four_bit = set(_four_bit(model))
    should_be = {name for name, _ in model.named_modules() if _QUANTISED.fullmatch(name)}
    if is_four_bit != should_be or not should_be:
        odd = sorted(is_four_bit ^ should_be)[:3]
        raise UserError(
            f"quantisation did not take as asked: {', '.join(odd) or 'no layer is 4-bit'}"
        )


def _adapt(model: nn.Module, profile: Profile, seed: int) -> PeftModel:
    torch.manual_seed(seed)
    trains_projector = profile.projector == "trained"
    config = LoraConfig(
        r=profile.lora_rank,
        lora_alpha=profile.lora_alpha,
        lora_dropout=profile.lora_dropout,
        target_modules=LORA_TARGETS,
        modules_to_save=["multi_modal_projector"] if trains_projector else None,
    )
    model.requires_grad_(False)
    with quiet_peft():
        adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if profile.gradient_checkpointing:
        _checkpoint(adapted.base_model.model)
    _check_adapted(adapted, trains_projector)
    return adapted


def _checkpoint(model: nn.Module) -> None:
    """Compute activations again instead of keeping them."""
    new_name = "activation_checkpointing_enable"  # since transformers 5.23
    enable = getattr(model, new_name, None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


@contextmanager
def quiet_peft():
    """PEFT asks transformers by a name that it is about to drop; each time it is told so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def _put_under(model: nn.Module, folder: Path) -> PeftModel:
    """The model with the injected adapter in `folder`, frozen, under the trained one, if any."""
    weights = trained_weights(folder)
    with quiet_peft():
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter_name=INJECTED)
        else:
            model = PeftModel.from_pretrained(model, str(folder), adapter_name=INJECTED)
    if adapter_weights(model, INJECTED).keys() != weights.keys():
        raise UserError(f"the adapter in {folder} does not fit its base model: inject again")
    for module in model.modules():
        if INJECTED in getattr(module, "lora_dropout", ()):
            module.lora_dropout[INJECTED] = nn.Identity()  # in training mode too
    _activate(model)
    return model


def _activate(model: PeftModel) -> None:
    """Every adapter speaks, and the injected one stays frozen."""
    model.base_model.set_adapter(
        [name for name in (INJECTED, LEARNING) if name in model.peft_config]
    )
    model.set_requires_grad(INJECTED, False)


def _check_adapted(model: PeftModel, trains_projector: bool) -> None:
    """LoRA sits on every linear layer of the language model, and nothing else is trainable."""
    base = model.base_model.model
    lora = {name for name, module in base.named_modules() if hasattr(module, "lora_A")}
    should_be = {name for name, _ in base.named_modules() if _QUANTISED.fullmatch(name)}
    strays = [
        name
        for name, parameter in base.named_parameters()
        if parameter.requires_grad
        and "lora_" not in name
        and not (trains_projector and "multi_modal_projector.modules_to_save" in name)
    ]
    if lora != should_be or strays or not lora:
        odd = [*sorted(lora ^ should_be), *strays][:3]
        raise UserError(f"LoRA did not land as asked: {', '.join(odd) or 'no layer carries it'}")


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
        _activate(model)


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the trained adapter, it alone, in PEFT's format, weights as safetensors."""
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
        UserError: the adapter is not there, does not fit, or is untrained.
    """
    weights = trained_weights(folder)
    try:
        result = set_peft_model_state_dict(model, weights)
    except (KeyError, RuntimeError) as error:  # a part that is not there, a shape that differs
        odd = str(error).splitlines()[-1].strip()
        raise UserError(f"the adapter in {folder} does not fit this model: {odd}") from None
    missing = [key for key in result.missing_keys if "lora_" in key and INJECTED not in key]
    if result.unexpected_keys or missing:
        odd = [*result.unexpected_keys, *missing][0]
        raise UserError(f"the adapter in {folder} does not fit this model: {odd}")
    taken = len(adapter_weights(model))
    if taken != len(weights):  # a projector's weights are dropped silently where it is frozen
        odd = f"it has {len(weights)} weights, the model takes {taken}"
        raise UserError(f"the adapter in {folder} does not fit this model: {odd}")


def adapter_weights(model: PeftModel, name: str = LEARNING) -> dict[str, torch.Tensor]:
    """An adapter's weights, by the names they have on disk; no hub is asked for them."""
    return get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)


def trained_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of an adapter on disk, by name.

    Raises:
        UserError: the adapter is not there, or is untrained.
    """
    if not (folder / "adapter_model.safetensors").exists():
        raise UserError(f"{folder} holds no adapter_model.safetensors; is this a finished run?")
    weights = load_peft_weights(str(folder), device="cpu")
    if all(not w.any() for key, w in weights.items() if "lora_B" in key):
        raise UserError(f"the adapter in {folder} is untrained: every LoRA B is zero")
    return weights


def is_local(model: str) -> bool:
    """Whether a model is read from here alone: it is a folder, or a copy and no hub in sight.

    Without a network `from_pretrained` would ask the hub again and again, for minutes.

    Raises:
        FileNotFoundError: no such folder; or no copy of an earlier download, and the hub does not
            answer.
    """
    if Path(model).is_dir():
        return True
    if Path(model).is_absolute():
        raise FileNotFoundError(f"there is no folder {model}")
    try:
        HfApi().model_info(model, timeout=10)
    except (HfHubHTTPError, HFValidationError):
        return False  # it answers: whoever loads the model tells what it said
    except Exception:  # no network, under whatever name the hub's client has for that
        if not isinstance(try_to_load_from_cache(model, "config.json"), str):
            raise FileNotFoundError(
                f"there is no folder {model}, no copy of an earlier download, and the hub does "
                "not answer"
            ) from None
        return True
    return False
