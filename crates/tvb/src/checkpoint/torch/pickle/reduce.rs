//! The few callables that mean something here: containers, and what PyTorch rebuilds tensors with.

use super::errors::{Step, malformed};
use super::machine::Machine;
use super::values::{Id, Node, Object, RawTensor, StorageKind, StorageRef};
use crate::checkpoint::limits::{CLASS_NAME_BYTES_MAX, N_TENSORS_MAX, RANK_MAX};
use crate::checkpoint::shown::shown;
use crate::checkpoint::torch::dtypes;

/// The most arguments that a known callable takes.
const N_ARGS_MAX: usize = 9;
/// The most parts of a persistent id; longer ones would be looked through again and again.
const N_ID_PARTS_MAX: usize = 16;

/// The value that a call makes. Where the callable is not known, that is an object which nobody looks into.
pub(super) fn call(machine: &mut Machine, callable: Id, args: Id) -> Step<Id> {
    match known(machine, callable, args)? {
        Some(result) => Ok(result),
        None => object(machine, callable),
    }
}

fn object(machine: &mut Machine, class: Id) -> Step<Id> {
    let object = Object { class, state: None, items: Vec::new(), entries: Vec::new() };
    machine.add(Node::Object(Box::new(object)))
}

fn known(machine: &mut Machine, mut callable: Id, mut args: Id) -> Step<Option<Id>> {
    // A tensor with attributes or of a subclass is a call inside a call: (function, type, arguments, state).
    if is_global(machine, callable, "torch._tensor", "_rebuild_from_type_v2") {
        match machine.values.node(args) {
            Node::Tuple(parts) => match **parts {
                [function, _, arguments, _] => (callable, args) = (function, arguments),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        }
    }
    let (Node::Global(module, name), Node::Tuple(parts)) = (machine.values.node(callable), machine.values.node(args))
    else {
        return Ok(None);
    };
    let (n_args, mut parts) = (parts.len(), parts.iter().copied());
    let parts: [Option<Id>; N_ARGS_MAX] = std::array::from_fn(|_| parts.next());
    let is_tensor = |id: &Id| matches!(machine.values.node(*id), Node::Tensor(_) | Node::Unsupported(_));
    match (&**module, &**name) {
        ("collections", "OrderedDict") | ("builtins" | "__builtin__", "dict") => dict(machine, parts[0]),
        ("collections", "defaultdict") => machine.add(Node::Dict(Vec::new())).map(Some),
        ("builtins" | "__builtin__", "set" | "frozenset") => set(machine, parts[0]),
        // The plain object of a class, as old protocols make it.
        ("copyreg" | "copy_reg", "_reconstructor") => match parts[0] {
            Some(class) => object(machine, class).map(Some),
            None => Ok(None),
        },
        ("_codecs", "encode") => latin1(machine, parts[0]),
        // A size is a tuple, a parameter is its tensor.
        ("torch", "Size") => Ok(parts[0].filter(|&id| machine.values.items(id).is_some())),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")
        | ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor")
        | ("torch.nn.parameter", "Parameter") => Ok(parts[0].filter(is_tensor)),
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") if n_args <= 7 => {
            // (storage, offset, size, stride, requires_grad, hooks, metadata)
            let metadata = parts[6];
            let tensor = describe(machine, parts, None, metadata);
            add_tensor(machine, tensor).map(Some)
        }
        ("torch._utils", "_rebuild_tensor_v3") if n_args <= 8 => {
            // (storage, offset, size, stride, requires_grad, hooks, dtype, metadata)
            let (Some(dtype), metadata) = (parts[6], parts[7]) else { return Ok(None) };
            let tensor = describe(machine, parts, Some(dtype), metadata);
            add_tensor(machine, tensor).map(Some)
        }
        ("torch._utils" | "torch._tensor", name) if name.starts_with("_rebuild") => {
            let why = format!("a tensor made by {}, which is not supported", shown(name));
            add_tensor(machine, Err(why)).map(Some)
        }
        _ => Ok(None),
    }
}

fn is_global(machine: &Machine, id: Id, module: &str, name: &str) -> bool {
    matches!(machine.values.node(id), Node::Global(found, what) if **found == *module && **what == *name)
}

/// `OrderedDict()`, or from a list of pairs.
fn dict(machine: &mut Machine, from: Option<Id>) -> Step<Option<Id>> {
    let values = &machine.values;
    let n_entries = from
        .map_or(0, |from| values.entries(from).map_or_else(|| values.items(from).map_or(0, <[Id]>::len), <[_]>::len));
    machine.link(2 * n_entries)?;
    let mut entries = Vec::with_capacity(n_entries);
    if let Some(from) = from {
        let values = &machine.values;
        if let Some(found) = values.entries(from) {
            entries.extend_from_slice(found);
        } else if let Some(items) = values.items(from) {
            for &item in items {
                match values.items(item) {
                    Some(&[key, value]) => entries.push((key, value)),
                    _ => return Ok(None),
                }
            }
        }
    }
    machine.add(Node::Dict(entries)).map(Some)
}

/// `set()`, or from a list.
fn set(machine: &mut Machine, from: Option<Id>) -> Step<Option<Id>> {
    let n_items = from.and_then(|from| machine.values.items(from)).map_or(0, <[Id]>::len);
    machine.link(n_items)?;
    let items = from.and_then(|from| machine.values.items(from)).unwrap_or_default().to_vec();
    machine.add(Node::Set(items)).map(Some)
}

/// Bytes as protocol 2 writes them: text of which every character is a byte.
fn latin1(machine: &mut Machine, text: Option<Id>) -> Step<Option<Id>> {
    let n_bytes = text.and_then(|text| machine.values.str(text)).map_or(0, str::len);
    // The text may be named again and again at the cost of two bytes.
    machine.link(n_bytes / 4)?;
    let Some(text) = text.and_then(|text| machine.values.str(text)) else { return Ok(None) };
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    let Some(bytes) = bytes else { return Ok(None) };
    machine.add(Node::Bytes(bytes.into())).map(Some)
}

/// What a persistent id stands for: a storage, or in old files a class with its source.
pub(super) fn persistent(machine: &mut Machine, id: Id) -> Step<Id> {
    let Node::Tuple(parts) = machine.values.node(id) else { return malformed("a persistent id that is no tuple") };
    if parts.len() > N_ID_PARTS_MAX {
        return malformed(format!("a persistent id of {} parts", parts.len()));
    }
    let kind = parts.first().and_then(|&kind| machine.values.str(kind));
    match (kind, &**parts) {
        (Some("module"), &[_, class, ..]) => Ok(class),
        (Some("storage"), &[_, class, key, _location, n_elements, ref rest @ ..]) => {
            let (Node::Global(module, name), Node::Str(key), &Node::Int(n_elements)) =
                (machine.values.node(class), machine.values.node(key), machine.values.node(n_elements))
            else {
                return malformed("a storage without a type, a key or a length");
            };
            let Ok(n_elements) = u64::try_from(n_elements) else {
                return malformed(format!("storage {} has {n_elements} elements", shown(key)));
            };
            let is_view = rest.iter().any(|&part| *machine.values.node(part) != Node::None);
            let kind = match (&**module, &**name) {
                _ if is_view => StorageKind::Unknown("a view of another storage, as PyTorch before 0.4 wrote".into()),
                // The name is copied, and may be mentioned again and again at the cost of two bytes.
                (module, name) if module.len() + name.len() > CLASS_NAME_BYTES_MAX => {
                    return malformed(format!(
                        "a storage whose type has a name of more than {CLASS_NAME_BYTES_MAX} bytes"
                    ));
                }
                ("torch" | "torch.cuda" | "torch.storage", name) => storage_kind(name),
                (module, name) => StorageKind::Unknown(format!("{module}.{name}").into()),
            };
            // Keys are short numbers; a long one repeated would copy itself.
            if key.len() > 64 {
                return malformed("a storage with a key of more than 64 bytes");
            }
            let storage = StorageRef { key: key.clone(), kind, n_elements };
            let number = machine.storage(storage)?;
            machine.add(Node::Storage(number))
        }
        _ => malformed("a persistent id that is no storage"),
    }
}

fn add_tensor(machine: &mut Machine, tensor: Result<RawTensor, String>) -> Step<Id> {
    machine.n_tensors += 1;
    if machine.n_tensors > N_TENSORS_MAX {
        return malformed(format!("more than {N_TENSORS_MAX} tensors"));
    }
    machine.add(match tensor {
        Ok(tensor) => Node::Tensor(Box::new(tensor)),
        Err(why) => Node::Unsupported(why.into()),
    })
}

/// (parts: storage, offset, size, stride, …) → a tensor, or why it cannot be read.
fn describe(
    machine: &Machine,
    parts: [Option<Id>; N_ARGS_MAX],
    dtype: Option<Id>,
    metadata: Option<Id>,
) -> Result<RawTensor, String> {
    let values = &machine.values;
    let [Some(storage), Some(offset), Some(size), Some(stride), ..] = parts else {
        return Err("a tensor with too few arguments".into());
    };
    let (&Node::Storage(storage), &Node::Int(offset)) = (values.node(storage), values.node(offset)) else {
        return Err("a tensor without a storage".into());
    };
    let Some(of_storage) = values.storages.get(storage as usize) else {
        return Err("a tensor of a storage that is not there".into());
    };
    let dtype = match (&of_storage.kind, dtype) {
        (_, Some(dtype)) => match values.node(dtype) {
            Node::Global(module, name) if **module == *"torch" => {
                dtypes::from_name(name).ok_or_else(|| format!("a tensor of the unknown dtype {}", shown(name)))?
            }
            _ => return Err("a tensor without a dtype".into()),
        },
        (StorageKind::Typed(dtype), None) => *dtype,
        (StorageKind::Untyped, None) => return Err("a tensor of an untyped storage, without a dtype".into()),
        (StorageKind::Unknown(name), None) => {
            return Err(format!("a tensor in {}, which is not supported", shown(name)));
        }
    };
    if metadata.is_some_and(|id| values.entries(id).is_some_and(|entries| !entries.is_empty())) {
        return Err("a conjugated or negated view, which is not supported".into());
    }
    let shape = dimensions(machine, size).ok_or("a tensor whose size makes no sense")?;
    let strides = dimensions(machine, stride).ok_or("a tensor whose strides make no sense")?;
    if shape.len() != strides.len() {
        return Err(format!("a tensor of {} dimensions with {} strides", shape.len(), strides.len()));
    }
    let offset = u64::try_from(offset).map_err(|_| format!("a tensor at the negative offset {offset}"))?;
    Ok(RawTensor { storage, dtype, offset, shape, strides })
}

fn dimensions(machine: &Machine, id: Id) -> Option<Vec<usize>> {
    let items = machine.values.items(id)?;
    if items.len() > RANK_MAX {
        return None;
    }
    items
        .iter()
        .map(|&item| match machine.values.node(item) {
            Node::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        })
        .collect()
}

/// The element type of a storage class: `FloatStorage` and the like.
fn storage_kind(class: &str) -> StorageKind {
    match (dtypes::from_storage_class(class), class) {
        (Some(dtype), _) => StorageKind::Typed(dtype),
        (None, "UntypedStorage" | "_UntypedStorage") => StorageKind::Untyped,
        (None, other) => StorageKind::Unknown(other.into()),
    }
}
