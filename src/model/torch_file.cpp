#include "rometrace/model/torch_file.hpp"

#include <algorithm>
#include <functional>  // std::less
#include <map>
#include <string_view>
#include <utility>

#include "model/pickle.hpp"
#include "model/state_dict.hpp"
#include "model/torch_tensors.hpp"
#include "model/zip.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/as_text.hpp"
#include "text/little_endian.hpp"
#include "text/mapping.hpp"
#include "text/packed_text.hpp"

namespace rometrace {
namespace {

using Bytes = std::span<const std::byte>;
using StorageBytes = std::map<std::string, Bytes, std::less<>>;

constexpr std::string_view kZipMagic = "PK\x03\x04";
constexpr std::string_view kPickleMagic = "\x80";
constexpr std::string_view kTarMagic = "ustar";
constexpr std::size_t kTarMagicAt = 257;
// The number 0x1950a86a20f9469cfc6c, with which torch.save's files began before PyTorch 1.6.
constexpr std::string_view kOldMagic = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
constexpr std::int64_t kOldProtocol = 1001;
constexpr std::size_t kCountWidth = 8;

/// The tensors with their bytes. Every storage that the dictionary refers to is in `storages`, and long enough.
std::vector<TensorView> with_bytes(StateDict dict, const StorageBytes& storages) {
  std::vector<TensorView> views;
  for (TorchTensor& tensor : dict.tensors) {
    tensor.view.bytes = storages.at(tensor.storage).subspan(tensor.begin, tensor.size);
    views.push_back(std::move(tensor.view));
  }
  return views;
}

/// A zip archive in which all entries are below one folder: data.pkl, data/KEY for each storage, byteorder, and others
/// that say nothing about the tensors.
class ZipFormat {
 public:
  ZipFormat(Bytes file, const std::string& where) : where_(where) {
    for (ZipEntry& entry : read_zip(file, where)) {
      if (folder_.empty()) folder_ = entry.name.substr(0, entry.name.find('/')) + '/';
      entries_.emplace(std::move(entry.name), entry.bytes);
    }
  }

  std::vector<TensorView> read() const {
    const Bytes* pickle = find("data.pkl");
    if (pickle == nullptr) throw Error(where_ + ": is a zip archive without data.pkl; expected a file of torch.save");
    if (find("constants.pkl") != nullptr) {
      throw Error(where_ +
                  ": is a TorchScript program; expected a state dict, as torch.save(model.state_dict(), ..) makes");
    }
    const Bytes* order = find("byteorder");
    if (order != nullptr && as_text(*order) != "little") {
      throw Error(where_ + ": its byte order is " + in_quotes(as_text(*order)) + "; expected \"little\"");
    }
    StateDict dict = to_state_dict(Pickle::read(*pickle, where_ + ": data.pkl", is_known_to_torch), where_);
    return with_bytes(dict, find_storages(dict));
  }

 private:
  const Bytes* find(const std::string& name) const {
    const auto found = entries_.find(folder_ + name);
    return found == entries_.end() ? nullptr : &found->second;
  }

  StorageBytes find_storages(const StateDict& dict) const {
    StorageBytes storages;
    for (const auto& [key, storage] : dict.storages) {
      const std::string name = "data/" + key;
      const Bytes* bytes = find(name);
      if (bytes == nullptr)
        throw Error(where_ + ": has no entry " + in_quotes(name) + ", a storage; get the file again");
      if (bytes->size() < storage.size()) {
        throw Error(where_ + ": entry " + in_quotes(name) + " has " + std::to_string(bytes->size()) +
                    " bytes, but the storage takes " + std::to_string(storage.size()));
      }
      storages.emplace(key, *bytes);
    }
    return storages;
  }

  const std::string& where_;
  std::string folder_;
  StorageBytes entries_;
};

/// Five pickles, one after another: the magic number, the protocol, the writing machine, the state dict, the keys of
/// the storages; then for each key the number of its elements (8 bytes) and the elements.
class OldFormat {
 public:
  OldFormat(Bytes file, const std::string& where) : rest_(file), where_(where) {}

  std::vector<TensorView> read() {
    const Pickle magic = take_pickle();
    if (magic.root().kind != PickleKind::kLargeInteger || magic.root().text != kOldMagic) {
      throw Error(where_ + ": is a pickle that begins with " + describe(magic.root()) +
                  "; expected the magic number of torch.save");
    }
    const Pickle protocol = take_pickle();
    if (protocol.root().kind != PickleKind::kInteger || protocol.root().integer != kOldProtocol) {
      throw Error(where_ + ": its protocol is " + describe(protocol.root()) + "; expected the number " +
                  std::to_string(kOldProtocol));
    }
    check_machine(take_pickle().root());
    StateDict dict = to_state_dict(take_pickle(), where_);
    const Pickle keys = take_pickle();
    return with_bytes(dict, take_storages(dict, keys.root()));
  }

 private:
  Pickle take_pickle() {
    Pickle pickle = Pickle::read(rest_, where_, is_known_to_torch);
    rest_ = rest_.subspan(pickle.length());
    return pickle;
  }

  void check_machine(const PickleValue& machine) const {
    if (machine.kind == PickleKind::kDict) {
      for (std::size_t i = 0; i < machine.items.size(); i += 2) {
        const PickleValue& value = *machine.items[i + 1];
        const bool is_byte_order =
            machine.items[i]->kind == PickleKind::kText && machine.items[i]->text == "little_endian";
        if (is_byte_order && value.kind == PickleKind::kBool && value.integer == 1) return;
      }
    }
    throw Error(where_ + ": does not say that it was written with the least significant byte first, as expected");
  }

  StorageBytes take_storages(const StateDict& dict, const PickleValue& keys) {
    if (keys.kind != PickleKind::kList) {
      throw Error(where_ + ": has " + describe(keys) + " where the list of its storages is expected");
    }
    StorageBytes storages;
    for (const PickleValue* key : keys.items) {
      const auto found = key->kind == PickleKind::kText ? dict.storages.find(key->text) : dict.storages.end();
      if (found == dict.storages.end()) {
        throw Error(where_ + ": lists " + describe(*key) + " as a storage, which no tensor has; get the file again");
      }
      const Bytes bytes = take_storage(*found);
      if (!storages.emplace(found->first, bytes).second) {
        throw Error(where_ + ": lists storage " + in_quotes(found->first) + " twice");
      }
    }
    for (const auto& [key, storage] : dict.storages) {
      if (storages.find(key) == storages.end()) throw Error(where_ + ": has no storage " + in_quotes(key));
    }
    return storages;
  }

  Bytes take_storage(const std::pair<const std::string, TorchStorage>& expected) {
    const auto& [key, storage] = expected;
    if (rest_.size() < kCountWidth || storage.size() > rest_.size() - kCountWidth) {
      throw Error(where_ + ": cut short: storage " + in_quotes(key) + " takes " + std::to_string(storage.size()) +
                  " bytes, and " + std::to_string(rest_.size()) + " are left; get the file again");
    }
    const std::uint64_t elements = little_endian(rest_.first(kCountWidth));
    if (elements != storage.elements) {
      throw Error(where_ + ": storage " + in_quotes(key) + " has " + std::to_string(elements) + " elements; expected " +
                  std::to_string(storage.elements));
    }
    const Bytes bytes = rest_.subspan(kCountWidth, storage.size());
    rest_ = rest_.subspan(kCountWidth + storage.size());
    return bytes;
  }

  Bytes rest_;
  const std::string& where_;
};

}  // namespace

std::vector<TensorView> read_torch_tensors(std::span<const std::byte> file, const std::string& where) {
  const std::string_view text = as_text(file);
  refuse_lfs_pointer(text, where);
  if (text.starts_with(kZipMagic)) return ZipFormat(file, where).read();
  if (text.starts_with(kPickleMagic)) return OldFormat(file, where).read();
  if (text.size() > kTarMagicAt && text.substr(kTarMagicAt).starts_with(kTarMagic)) {
    throw Error(where + ": is in the tar format of PyTorch before 0.1.10; load it with torch.load and save it again");
  }
  throw Error(where + ": is neither a zip archive nor a pickle; expected a file that torch.save wrote");
}

TorchFile TorchFile::open(const std::filesystem::path& path) {
  auto mapping = std::make_unique<const Mapping>(InputFile::open(path));
  std::vector<TensorView> tensors = read_torch_tensors(mapping->bytes(), mapping->label());
  return {path, std::move(mapping), std::move(tensors)};
}

}  // namespace rometrace
