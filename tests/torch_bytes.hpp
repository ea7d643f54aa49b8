#pragma once

// Files of torch.save put together byte by byte, for tests of what no torch.save would write.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rometrace::testing {

/// A number as `width` bytes, the least significant first.
inline std::string number_bytes(std::uint64_t number, std::size_t width) {
  std::string bytes;
  for (std::size_t i = 0; i < width; ++i) bytes += static_cast<char>(number >> 8 * i & 0xFFU);
  return bytes;
}

/// Opcodes of pickles; each gives the bytes that put one value on the stack.
namespace pickled {

inline std::string text(std::string_view text) {
  return "X" + number_bytes(text.size(), 4) + std::string(text);
}
inline std::string number(std::int64_t number) {
  return "\x8a\x08" + number_bytes(static_cast<std::uint64_t>(number), 8);
}
inline std::string global(std::string_view module, std::string_view name) {
  return "c" + std::string(module) + "\n" + std::string(name) + "\n";
}
inline std::string tuple(const std::vector<std::string>& items) {
  std::string bytes = "(";
  for (const std::string& item : items) bytes += item;
  return bytes + "t";
}
inline std::string sizes(const std::vector<std::int64_t>& sizes) {
  std::vector<std::string> items;
  for (const std::int64_t size : sizes) items.push_back(number(size));
  return tuple(items);
}
inline std::string call(const std::string& callable, const std::vector<std::string>& arguments) {
  return callable + tuple(arguments) + "R";
}
inline std::string storage(std::string_view storage_class, std::string_view key, std::int64_t elements) {
  return tuple({text("storage"), global("torch", storage_class), text(key), text("cpu"), number(elements)}) + "Q";
}
inline std::string tensor(const std::string& storage, std::int64_t offset, const std::vector<std::int64_t>& shape,
                          const std::vector<std::int64_t>& strides) {
  return call(global("torch._utils", "_rebuild_tensor_v2"), {storage, number(offset), sizes(shape), sizes(strides),
                                                             "\x89", call(global("collections", "OrderedDict"), {})});
}
/// A dictionary of one entry.
inline std::string entry(const std::string& key, const std::string& value) {
  return "}" + key + value + "s";
}
/// A whole pickle of protocol 2.
inline std::string pickle(const std::string& value) {
  return "\x80\x02" + value + ".";
}

}  // namespace pickled

/// What a zip archive says of an entry; by default the truth.
struct ZipPart {
  std::string name;
  std::string data;
  std::uint64_t method = 0;
  std::uint64_t flags = 0;
};

/// A zip archive of these entries. The end record says `extra_entries` more than there are.
inline std::string zip_bytes(const std::vector<ZipPart>& parts, std::uint64_t extra_entries = 0) {
  std::string file;
  std::string directory;
  for (const auto& [name, data, method, flags] : parts) {
    const std::string sizes = number_bytes(data.size(), 4) + number_bytes(data.size(), 4);
    const std::string common = number_bytes(flags, 2) + number_bytes(method, 2) + std::string(8, '\0') + sizes +
                               number_bytes(name.size(), 2) + number_bytes(0, 2);
    directory += "PK\x01\x02" + number_bytes(20, 2) + number_bytes(20, 2) + common + std::string(10, '\0') +
                 number_bytes(file.size(), 4) + name;
    file += "PK\x03\x04" + number_bytes(20, 2) + common + name + data;
  }
  const std::uint64_t entries = parts.size() + extra_entries;
  return file + directory + "PK\x05\x06" + std::string(4, '\0') + number_bytes(entries, 2) + number_bytes(entries, 2) +
         number_bytes(directory.size(), 4) + number_bytes(file.size(), 4) + number_bytes(0, 2);
}

/// A file of torch.save in its zip format: the state dict's pickle and the storages "0", "1", ...
inline std::string torch_zip(const std::string& pickle, const std::vector<std::string>& storages) {
  std::vector<ZipPart> parts = {{"archive/data.pkl", pickle}, {"archive/byteorder", "little"}};
  for (std::size_t i = 0; i < storages.size(); ++i) parts.push_back({"archive/data/" + std::to_string(i), storages[i]});
  return zip_bytes(parts);
}

/// What a file of torch.save before PyTorch 1.6 begins with.
inline std::string old_torch_head() {
  return pickled::pickle("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19") + pickled::pickle(pickled::number(1001)) +
         pickled::pickle(pickled::entry(pickled::text("little_endian"), "\x88"));
}

/// A file of torch.save before PyTorch 1.6 with one storage.
inline std::string old_torch(const std::string& pickle, std::string_view key, std::uint64_t elements,
                             const std::string& data) {
  return old_torch_head() + pickle + pickled::pickle("]" + pickled::text(key) + "a") + number_bytes(elements, 8) + data;
}

}  // namespace rometrace::testing
