#include "model/safetensors_writer.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/little_endian.hpp"

namespace rometrace {
namespace {

/// A new file next to `target`, gone with the object unless it has taken the target's place.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::filesystem::path target)
      : target_(std::move(target)), name_((target_.parent_path() / ".rometrace-XXXXXX").native()) {
    descriptor_ = ::mkstemp(name_.data());
    if (descriptor_ < 0) fail();
  }
  ~TemporaryFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!name_.empty()) ::unlink(name_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
      if (count >= 0) {
        bytes = bytes.subspan(static_cast<std::size_t>(count));
      } else if (errno != EINTR) {
        fail();
      }
    }
  }

  void take_place() {
    const int closed = ::close(descriptor_);
    descriptor_ = -1;
    if (closed != 0 || ::rename(name_.c_str(), target_.c_str()) != 0) {
      const int reason = errno;
      ::unlink(name_.c_str());
      name_.clear();
      errno = reason;
      fail();
    }
    name_.clear();
  }

 private:
  [[noreturn]] void fail() const {
    throw Error(label_of(target_) + ": cannot be written: " + std::generic_category().message(errno));
  }

  std::filesystem::path target_;
  std::string name_;
  int descriptor_ = -1;
};

}  // namespace

std::string safetensors_header(std::span<const TensorView> tensors, const SafetensorsMetadata& metadata) {
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t end = 0;
  for (const auto& tensor : tensors) {
    const auto begin = end;
    end += tensor.bytes.size();
    header[tensor.name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // so that the data are aligned
  std::string bytes;
  append_little_endian(bytes, text.size(), 8);
  return bytes + text;
}

void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                       const SafetensorsMetadata& metadata) {
  const auto header = safetensors_header(tensors, metadata);
  TemporaryFile file(path);
  file.write(std::as_bytes(std::span(header)));
  for (const auto& tensor : tensors) file.write(tensor.bytes);
  file.take_place();
}

}  // namespace rometrace
