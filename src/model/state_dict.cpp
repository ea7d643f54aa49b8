#include "model/state_dict.hpp"

#include <algorithm>
#include <array>
#include <functional>  // std::less
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/utf8.hpp"

// How PyTorch pickles a tensor: a call of torch._utils._rebuild_tensor_v2 with a storage, the offset of the tensor's
// first element in it, sizes, strides (both in elements) and three things that change no value. A storage is a
// persistent id: ("storage", its class, key, device, number of elements), in the format before PyTorch 1.6 with a
// sixth: None, or (key, offset, number of elements) of the part of the storage that is meant. Versions 1 and 3 of the
// function differ at the end, where version 3 has the dtype; its storage counts bytes. A parameter is a call around a
// tensor; so is a tensor to which Python code gave attributes: torch._tensor._rebuild_from_type_v2 has the function,
// the class, the function's arguments and the attributes, which no weight needs.

namespace rometrace {
namespace {

using std::string_view;

constexpr std::size_t kMaxDimensions = 16;  // more than any weights have

/// A dtype: its name in safetensors, torch's class of storages (empty if none), torch's name, bytes of an element.
struct Dtype {
  string_view name;
  string_view storage_class;
  string_view torch_name;
  std::uint64_t size;
};

constexpr std::array<Dtype, 20> kDtypes{{
    {"F32", "FloatStorage", "float32", 4},
    {"F16", "HalfStorage", "float16", 2},
    {"BF16", "BFloat16Storage", "bfloat16", 2},
    {"F64", "DoubleStorage", "float64", 8},
    {"I64", "LongStorage", "int64", 8},
    {"I32", "IntStorage", "int32", 4},
    {"I16", "ShortStorage", "int16", 2},
    {"I8", "CharStorage", "int8", 1},
    {"U8", "ByteStorage", "uint8", 1},
    {"BOOL", "BoolStorage", "bool", 1},
    {"C64", "ComplexFloatStorage", "complex64", 8},
    {"C128", "ComplexDoubleStorage", "complex128", 16},
    {"U16", "", "uint16", 2},
    {"U32", "", "uint32", 4},
    {"U64", "", "uint64", 8},
    {"F8_E4M3", "", "float8_e4m3fn", 1},
    {"F8_E5M2", "", "float8_e5m2", 1},
    {"F8_E4M3FNUZ", "", "float8_e4m3fnuz", 1},
    {"F8_E5M2FNUZ", "", "float8_e5m2fnuz", 1},
    {"F8_E8M0", "", "float8_e8m0fnu", 1},
}};

const Dtype* find_dtype(string_view Dtype::*field, string_view name) {
  const auto found = std::find_if(kDtypes.begin(), kDtypes.end(),
                                  [&](const Dtype& dtype) { return !name.empty() && dtype.*field == name; });
  return found == kDtypes.end() ? nullptr : &*found;
}

bool is_untyped_storage(string_view module, string_view name) {
  return module == "torch.storage" && (name == "UntypedStorage" || name == "_UntypedStorage");
}

bool is_parameter(string_view name) {
  return name == "_rebuild_parameter" || name == "_rebuild_parameter_with_state";
}

bool is_rebuild(string_view name) {
  return name == "_rebuild_tensor" || name == "_rebuild_tensor_v2" || name == "_rebuild_tensor_v3" ||
         is_parameter(name);
}

/// A storage as a tensor refers to it: the part [begin, begin + elements) of the one with that key.
struct StorageUse {
  std::string key;
  const Dtype* dtype = nullptr;  ///< nullptr: bytes of no dtype
  std::uint64_t begin = 0;       ///< in elements
  std::uint64_t elements = 0;

  std::uint64_t element_size() const { return dtype == nullptr ? 1 : dtype->size; }
};

bool is_torch_size(const PickleValue& value) {
  return value.kind == PickleKind::kCall && value.items[0]->text == "torch" && value.items[0]->name == "Size";
}

bool is_rebuild_call(const PickleValue& value) {
  return value.kind == PickleKind::kCall && value.items[0]->text == "torch._utils";
}

bool is_call_with_attributes(const PickleValue& value) {
  return value.kind == PickleKind::kCall && value.items[0]->text == "torch._tensor";
}

/// Whether a value is a tensor, well described or not; what is none is no weight.
bool is_tensor(const PickleValue& value) {
  return is_rebuild_call(value) || is_call_with_attributes(value);
}

/// Reads one tensor's description; `where` names file and tensor.
class TorchTensorReader {
 public:
  TorchTensorReader(std::string where, StateDict& dict) : where_(std::move(where)), dict_(dict) {}

  TorchTensor read(const PickleValue& value) const {
    if (is_rebuild_call(value) && is_parameter(value.items[0]->name)) return read_parameter(value.items[1]->items);
    return read_data(value);
  }

  /// Of a storage that belongs to nothing that is read; a file may hold its bytes before others.
  void note_storage(const PickleValue& value) const { read_storage(value); }

 private:
  [[noreturn]] void refuse(const std::string& complaint) const { throw Error(where_ + " " + complaint); }

  TorchTensor read_parameter(const std::vector<const PickleValue*>& arguments) const {
    if (arguments.empty()) refuse("is a parameter without a tensor");
    // Not again a parameter: the depth of these calls is the file's choice.
    if (is_rebuild_call(*arguments[0]) && is_parameter(arguments[0]->items[0]->name)) {
      refuse("is a parameter of a parameter; expected that of a tensor");
    }
    return read_data(*arguments[0]);
  }

  TorchTensor read_data(const PickleValue& value) const {
    if (is_call_with_attributes(value)) {
      const auto& parts = value.items[1]->items;
      if (parts.size() < 3 || parts[0]->kind != PickleKind::kGlobal || parts[0]->text != "torch._utils" ||
          is_parameter(parts[0]->name) || parts[2]->kind != PickleKind::kTuple) {
        refuse("has attributes, but is not described as a tensor is");
      }
      return read_tensor(parts[0]->name, parts[2]->items);
    }
    if (!is_rebuild_call(value)) refuse("is " + describe(value) + "; expected a tensor");
    return read_tensor(value.items[0]->name, value.items[1]->items);
  }

  TorchTensor read_tensor(string_view function, const std::vector<const PickleValue*>& arguments) const {
    const bool has_dtype = function == "_rebuild_tensor_v3";
    if (arguments.size() < (has_dtype ? 7U : 4U)) {
      refuse("is described by " + std::to_string(arguments.size()) + " values, too few for " + std::string(function));
    }
    StorageUse storage = read_storage(*arguments[0]);
    if (has_dtype) {
      set_dtype(storage, *arguments[6]);
    } else if (storage.dtype == nullptr) {
      refuse("is of a storage without a dtype");
    }
    return place(storage, read_size(*arguments[1], "offset"), read_sizes(*arguments[2], "shape"),
                 read_sizes(*arguments[3], "strides"));
  }

  std::uint64_t read_size(const PickleValue& value, const char* what) const {
    if (value.kind != PickleKind::kInteger || value.integer < 0) {
      refuse("has " + describe(value) + " as its " + what + "; expected a number from 0 up");
    }
    return static_cast<std::uint64_t>(value.integer);
  }

  std::vector<std::int64_t> read_sizes(const PickleValue& value, const char* what) const {
    const PickleValue& list =
        is_torch_size(value) && !value.items[1]->items.empty() ? *value.items[1]->items[0] : value;
    if ((list.kind != PickleKind::kTuple && list.kind != PickleKind::kList) || list.items.size() > kMaxDimensions) {
      refuse("has " + describe(list) + " as its " + what + "; expected at most " + std::to_string(kMaxDimensions) +
             " numbers");
    }
    std::vector<std::int64_t> sizes;
    for (const PickleValue* item : list.items) sizes.push_back(static_cast<std::int64_t>(read_size(*item, what)));
    return sizes;
  }

  StorageUse read_storage(const PickleValue& value) const {
    if (value.kind != PickleKind::kPersistent) refuse("is of " + describe(value) + "; expected a storage");
    const PickleValue& id = *value.items[0];
    const auto& items = id.items;
    if (id.kind != PickleKind::kTuple || (items.size() != 5 && items.size() != 6) ||
        items[0]->kind != PickleKind::kText || items[0]->text != "storage" || items[1]->kind != PickleKind::kGlobal ||
        items[2]->kind != PickleKind::kText) {
      refuse("is of a storage that is described by " + describe(id) +
             "; expected (\"storage\", class, key, device, elements)");
    }
    StorageUse use;
    use.key = items[2]->text;
    use.elements = read_size(*items[4], "storage's number of elements");
    if (!is_untyped_storage(items[1]->text, items[1]->name)) {
      use.dtype = find_dtype(&Dtype::storage_class, items[1]->name);
      if (items[1]->text != "torch" || use.dtype == nullptr)
        refuse("is of " + describe(*items[1]) + "; expected a storage's class");
    }
    add_storage(use);
    if (items.size() == 6 && items[5]->kind != PickleKind::kNone) narrow(use, *items[5]);
    return use;
  }

  void add_storage(const StorageUse& use) const {
    std::uint64_t bytes = 0;
    if (__builtin_mul_overflow(use.elements, use.element_size(), &bytes)) {
      refuse("is of a storage of " + std::to_string(use.elements) + " elements, larger than any file");
    }
    const TorchStorage storage{use.elements, use.element_size()};
    const auto [place, is_new] = dict_.storages.emplace(use.key, storage);
    if (!is_new && place->second != storage) {
      refuse("is of storage " + in_quotes(use.key) + ", which another tensor describes differently");
    }
  }

  void narrow(StorageUse& use, const PickleValue& view) const {
    if (view.kind != PickleKind::kTuple || view.items.size() != 3) {
      refuse("is of a part of a storage that is described by " + describe(view) + "; expected (key, offset, elements)");
    }
    const std::uint64_t begin = read_size(*view.items[1], "storage's offset");
    const std::uint64_t elements = read_size(*view.items[2], "storage's number of elements");
    if (begin > use.elements || elements > use.elements - begin) {
      refuse("is of elements " + std::to_string(begin) + " to " + std::to_string(begin + elements) +
             " of a storage of " + std::to_string(use.elements));
    }
    use.begin = begin;
    use.elements = elements;
  }

  void set_dtype(StorageUse& use, const PickleValue& value) const {
    const Dtype* dtype = value.kind == PickleKind::kGlobal ? find_dtype(&Dtype::torch_name, value.name) : nullptr;
    if (dtype == nullptr) refuse("has " + describe(value) + " as its dtype; expected one of torch's");
    if (use.dtype != nullptr && use.dtype != dtype) refuse("has two dtypes");
    if (use.dtype == nullptr) {
      if (use.begin % dtype->size != 0) refuse("begins inside an element of its storage");
      use.begin /= dtype->size;
      use.elements /= dtype->size;
    }
    use.dtype = dtype;
  }

  /// Sees to it that every element is inside the storage.
  TorchTensor place(const StorageUse& storage, std::uint64_t offset, std::vector<std::int64_t> shape,
                    std::vector<std::int64_t> strides) const {
    if (shape.size() != strides.size()) {
      refuse("has shape " + shape_text(shape) + " and strides " + shape_text(strides) + "; expected as many of each");
    }
    TorchTensor tensor;
    const bool is_empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
    const std::optional<std::uint64_t> span = is_empty ? 0 : span_of(shape, strides);
    if (!span || offset > storage.elements || *span > storage.elements - offset) {
      refuse("has shape " + shape_text(shape) + ", strides " + shape_text(strides) + " and offset " +
             std::to_string(offset) + ", which lead outside its storage of " + std::to_string(storage.elements) +
             " elements");
    }
    tensor.begin = (storage.begin + offset) * storage.element_size();
    tensor.size = *span * storage.element_size();
    tensor.storage = storage.key;
    if (!is_empty && !is_row_major(shape, strides)) tensor.view.strides = std::move(strides);
    tensor.view.shape = std::move(shape);
    tensor.view.dtype = storage.dtype->name;
    return tensor;
  }

  /// Elements from the first to the last, both counted; nothing if that does not fit in 64 bits, or their number.
  static std::optional<std::uint64_t> span_of(const std::vector<std::int64_t>& shape,
                                              const std::vector<std::int64_t>& strides) {
    std::int64_t last = 0;
    std::int64_t count = 1;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      std::int64_t reach = 0;
      if (__builtin_mul_overflow(shape[i] - 1, strides[i], &reach) || __builtin_add_overflow(last, reach, &last) ||
          __builtin_mul_overflow(count, shape[i], &count)) {
        return std::nullopt;
      }
    }
    return static_cast<std::uint64_t>(last) + 1;
  }

  static bool is_row_major(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides) {
    std::int64_t expected = 1;  // cannot overflow: the number of elements fits
    for (std::size_t i = shape.size(); i-- > 0;) {
      if (shape[i] != 1 && strides[i] != expected) return false;
      expected *= shape[i];
    }
    return true;
  }

  std::string where_;
  StateDict& dict_;
};

bool holds_tensors(const PickleValue& value) {
  if (value.kind != PickleKind::kDict) return false;
  for (std::size_t i = 1; i < value.items.size(); i += 2) {
    if (is_tensor(*value.items[i])) return true;
  }
  return false;
}

/// For a dictionary without tensors. Training code saves the weights beside the optimiser and more; which of the parts
/// is meant (the last weights, their running mean) is not for us to guess.
[[noreturn]] void refuse_without_tensors(const PickleValue& root, const std::string& where) {
  std::string inside, command;
  for (std::size_t i = 0; i < root.items.size(); i += 2) {
    const PickleValue& key = *root.items[i];
    if (key.kind != PickleKind::kText || find_invalid_utf8(key.text) || !holds_tensors(*root.items[i + 1])) continue;
    inside += (inside.empty() ? "" : " and ") + in_quotes(key.text);
    if (command.empty()) command = "['" + one_line(key.text) + "']";
  }
  if (inside.empty()) {
    throw Error(where + ": has no tensors, but other entries, such as " + describe(*root.items[0]) +
                "; expected a state dict, a dictionary from names to tensors");
  }
  throw Error(where + ": holds its tensors inside " + inside +
              ", as training code saves them; save the model's part alone: python -c \"import torch; "
              "torch.save(torch.load('FILE', weights_only=True)" +
              command + ", 'FILE')\"");
}

}  // namespace

bool is_known_to_torch(string_view module, string_view name) {
  if (module == "collections") return name == "OrderedDict" || name == "Counter";
  if (module == "torch._utils") return is_rebuild(name);
  if (module == "torch._tensor") return name == "_rebuild_from_type_v2";
  if (module == "torch.nn.parameter") return name == "Parameter";
  if (module == "torch.storage") return is_untyped_storage(module, name);
  return module == "torch" &&
         (name == "Size" || name == "Tensor" || name == "device" ||
          find_dtype(&Dtype::storage_class, name) != nullptr || find_dtype(&Dtype::torch_name, name) != nullptr);
}

StateDict to_state_dict(const Pickle& pickle, const std::string& where) {
  const PickleValue& root = pickle.root();
  if (root.kind != PickleKind::kDict) {
    throw Error(where + ": holds " + describe(root) + "; expected a state dict, a dictionary from names to tensors");
  }
  StateDict dict;
  std::set<string_view> names;
  for (std::size_t i = 0; i < root.items.size(); i += 2) {
    const PickleValue& key = *root.items[i];
    const PickleValue& value = *root.items[i + 1];
    if (!is_tensor(value)) continue;
    if (key.kind != PickleKind::kText || find_invalid_utf8(key.text)) {
      throw Error(where + ": has " + describe(key) + " where the name of a tensor is expected");
    }
    const std::string label = where + ": tensor " + in_quotes(key.text);
    if (!names.insert(key.text).second) throw Error(label + " is there twice; expected each name once");
    TorchTensor tensor = TorchTensorReader(label, dict).read(value);
    tensor.view.name = key.text;
    dict.tensors.push_back(std::move(tensor));
  }
  if (dict.tensors.empty() && !root.items.empty()) refuse_without_tensors(root, where);
  for (const PickleValue& value : pickle.values()) {
    if (value.kind == PickleKind::kPersistent) TorchTensorReader(where + ": a tensor", dict).note_storage(value);
  }
  return dict;
}

}  // namespace rometrace
