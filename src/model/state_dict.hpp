#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/pickle.hpp"
#include "rometrace/model/weight_file.hpp"

namespace rometrace {

/// A storage, the block of elements that PyTorch's tensors are views of, as a pickle refers to it.
struct TorchStorage {
  std::uint64_t elements = 0;
  std::uint64_t element_size = 0;  ///< in bytes

  std::uint64_t size() const { return elements * element_size; }  ///< in bytes; fits
  bool operator==(const TorchStorage&) const = default;
};

/// A tensor and where its bytes are; they are inside the storage.
struct TorchTensor {
  TensorView view;  ///< `bytes` are still empty
  std::string storage;
  std::uint64_t begin = 0;  ///< the first of its bytes in the storage
  std::uint64_t size = 0;   ///< in bytes
};

/// What the pickle of a torch.save file says.
struct StateDict {
  std::vector<TorchTensor> tensors;  ///< in the order of the dictionary
  /// All that the pickle refers to, by their keys; of tensors that are left out too.
  std::map<std::string, TorchStorage, std::less<>> storages;
};

/// For `Pickle::read`: the names that state dicts are made of.
bool is_known_to_torch(std::string_view module, std::string_view name);

/// Takes a state dict from its pickle: the tensors of a dictionary by their names. What stands beside them and is no
/// tensor (a counter, an optimiser's state, and what that holds) is left out. `where` (the file) opens the messages.
/// Throws Error: not a dictionary, one without tensors that holds something else, a tensor outside its storage or
/// described in a way that is not known, a name twice.
StateDict to_state_dict(const Pickle& pickle, const std::string& where);

}  // namespace rometrace
