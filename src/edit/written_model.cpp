#include "rometrace/edit/written_model.hpp"

#include <ATen/core/Tensor.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "hub/weight_files.hpp"
#include "model/safetensors_writer.hpp"
#include "rometrace/error.hpp"
#include "rometrace/model/checkpoint.hpp"
#include "rometrace/model/config.hpp"
#include "rometrace/model/fingerprint.hpp"
#include "rometrace/model/matrix_change.hpp"
#include "rometrace/model/safetensors.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/gguf_header.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kStep = std::size_t{1} << 22;  // bytes that are read, or written, at once

[[noreturn]] void refuse_to_write(const fs::path& target, int error) {
  throw Error(label_of(target) + ": cannot be written: " + std::generic_category().message(error));
}

/// A folder that is being made beside `target`, gone with the object unless it has taken the target's place.
class UnfinishedFolder {
 public:
  explicit UnfinishedFolder(fs::path target) : target_(std::move(target)) {
    auto name = (target_.parent_path() / ".rometrace-XXXXXX").native();
    if (::mkdtemp(name.data()) == nullptr) refuse_to_write(target_, errno);
    path_ = name;
  }
  ~UnfinishedFolder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  UnfinishedFolder(const UnfinishedFolder&) = delete;
  UnfinishedFolder& operator=(const UnfinishedFolder&) = delete;

  const fs::path& path() const { return path_; }
  const fs::path& target() const { return target_; }

  void make_folder(const fs::path& name) const {
    std::error_code error;
    fs::create_directories(path_ / name, error);
    if (error) refuse_to_write(target_, error.value());
  }

  void take_place() {
    const mode_t mask = ::umask(0);  // there is no other way to ask for it
    ::umask(mask);
    constexpr mode_t kNewFolder = 0777;
    sync(path_);
    if (::chmod(path_.c_str(), kNewFolder & ~mask) != 0 || ::rename(path_.c_str(), target_.c_str()) != 0) {
      refuse_to_write(target_, errno);
    }
    path_.clear();
    sync(target_.parent_path());
  }

 private:
  // Not every file system can, and what was written is there all the same.
  static void sync(const fs::path& folder) {
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;
    ::fsync(descriptor);
    ::close(descriptor);
  }

  fs::path target_, path_;
};

/// A new file in the unfinished folder.
class NewFile {
 public:
  NewFile(const UnfinishedFolder& folder, const fs::path& name, std::stop_token stop)
      : target_(folder.target()), stop_(std::move(stop)) {
    constexpr mode_t kNewFile = 0666;
    descriptor_ = ::open((folder.path() / name).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kNewFile);
    if (descriptor_ < 0) refuse_to_write(target_, errno);
  }
  ~NewFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      if (stop_.stop_requested()) throw Interrupted();
      const ssize_t count = ::write(descriptor_, bytes.data(), std::min(bytes.size(), kStep));
      if (count >= 0) {
        bytes = bytes.subspan(static_cast<std::size_t>(count));
      } else if (errno != EINTR) {
        refuse_to_write(target_, errno);
      }
    }
  }

  /// To be called once, when all has been written.
  void close() {
    const bool synced = ::fsync(descriptor_) == 0 || errno == EINVAL;
    const int reason = errno;
    const bool closed = ::close(std::exchange(descriptor_, -1)) == 0;
    if (!synced || !closed) refuse_to_write(target_, synced ? errno : reason);
  }

 private:
  fs::path target_;
  std::stop_token stop_;
  int descriptor_ = -1;
};

void copy_file(const fs::path& from, const UnfinishedFolder& folder, const fs::path& name,
               const std::stop_token& stop) {
  auto file = InputFile::open(from);
  NewFile copy(folder, name, stop);
  std::vector<std::byte> buffer(kStep);
  for (std::size_t count = kStep; count == kStep;) {
    count = file.read(buffer);
    copy.write(std::span(buffer).first(count));
  }
  copy.close();
}

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

/// The bytes of a matrix with what is laid over it, in the file's dtype, piece by piece.
void write_changed(const Checkpoint& checkpoint, const std::string& name, NewFile& file) {
  constexpr std::int64_t kNumbers = std::int64_t{1} << 20;
  const auto& shape = checkpoint.stored(name).shape;
  const auto type = checkpoint.type(name);
  const auto step = std::max<std::int64_t>(1, kNumbers / std::max<std::int64_t>(1, shape.back()));
  for (std::int64_t begin = 0; begin < shape.front(); begin += step) {
    file.write(bytes_of(checkpoint.rows(name, shape, type, begin, std::min(begin + step, shape.front()))));
  }
}

/// A safetensors file in which nothing differs but the changed matrices. `changed` are their names in the checkpoint,
/// by those in the file.
void rewrite_safetensors(const fs::path& path, const std::map<std::string, std::string>& changed,
                         const Checkpoint& checkpoint, const UnfinishedFolder& folder, const std::stop_token& stop) {
  const auto source = SafetensorsFile::open(path);
  NewFile file(folder, path.filename(), stop);
  // All before the data: as it is, whatever the order and the spaces in its header.
  std::size_t data = 0;
  for (const auto& tensor : source.tensors()) data += tensor.bytes.size();
  auto input = InputFile::open(path);
  std::vector<std::byte> head(static_cast<std::size_t>(input.size()) - data);
  if (input.read(head) != head.size()) throw Error(label_of(path) + ": was changed while it was read");
  file.write(head);
  for (const auto& tensor : source.tensors()) {
    if (const auto found = changed.find(tensor.name); found != changed.end()) {
      write_changed(checkpoint, found->second, file);
      continue;
    }
    for (std::size_t begin = 0; begin < tensor.bytes.size(); begin += kStep) {
      const auto some = tensor.bytes.subspan(begin, std::min(kStep, tensor.bytes.size() - begin));
      file.write(some);
      source.release(some);
    }
  }
  file.close();
}

/// Bytes of an element, by safetensors' name of its type, from those of the whole.
std::size_t element_size(const TensorView& stored) {
  static const std::map<std::string_view, std::size_t> kSizes = {{"F64", 8},  {"I64", 8}, {"U64", 8}, {"C64", 8},
                                                                 {"F32", 4},  {"I32", 4}, {"U32", 4}, {"F16", 2},
                                                                 {"BF16", 2}, {"I16", 2}, {"U16", 2}};
  const auto found = kSizes.find(stored.dtype);
  return found == kSizes.end() ? 1 : found->second;
}

std::uint64_t count_of(const TensorView& stored) {
  std::uint64_t count = 1;
  for (const auto length : stored.shape) count *= static_cast<std::uint64_t>(length);
  return count;
}

/// Writes the elements of a tensor row-major, whatever their order in its file.
void write_row_major(const TensorView& stored, NewFile& file) {
  if (stored.strides.empty()) return file.write(stored.bytes);
  const auto width = element_size(stored);
  std::vector<std::byte> piece;
  std::vector<std::int64_t> index(stored.shape.size(), 0);
  for (std::uint64_t left = count_of(stored); left > 0; --left) {
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < index.size(); ++i) offset += index[i] * stored.strides[i];
    const auto element = stored.bytes.subspan(static_cast<std::size_t>(offset) * width, width);
    piece.insert(piece.end(), element.begin(), element.end());
    if (piece.size() >= kStep || left == 1) {
      file.write(piece);
      piece.clear();
    }
    for (std::size_t i = index.size(); i-- > 0 && ++index[i] == stored.shape[i];) index[i] = 0;
  }
}

/// All tensors of the checkpoint as one safetensors file.
void write_whole(const Checkpoint& checkpoint, const std::set<std::string>& changed, const UnfinishedFolder& folder,
                 const std::stop_token& stop) {
  struct Entry {
    std::string name;
    TensorView stored;
    std::size_t width;
  };
  std::vector<Entry> entries;
  for (const auto& name : checkpoint.names()) {
    auto stored = checkpoint.stored(name);
    const auto width = element_size(stored);
    if (!stored.strides.empty() && count_of(stored) > stored.bytes.size() / width) {
      throw Error(label_of(checkpoint.files().front()) + ": tensor " + in_quotes(name) +
                  " has more elements than its bytes hold; expected each to have its own");
    }
    entries.push_back({name, std::move(stored), width});
  }
  // The widest first, so that all are aligned.
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.width > b.width; });
  std::vector<TensorView> views;
  for (const auto& entry : entries) {
    auto view = entry.stored;
    view.name = entry.name;
    view.strides.clear();
    // For the header only its length counts.
    view.bytes = {entry.stored.bytes.data(), static_cast<std::size_t>(count_of(entry.stored)) * entry.width};
    views.push_back(std::move(view));
  }
  NewFile file(folder, kSafetensorsNames.single_file, stop);
  const auto header = safetensors_header(views, {{"format", "pt"}});
  file.write(std::as_bytes(std::span(header)));
  for (const auto& entry : entries) {
    if (changed.contains(entry.name)) {
      write_changed(checkpoint, entry.name, file);
    } else {
      write_row_major(entry.stored, file);
    }
    checkpoint.release(entry.name);
  }
  file.close();
}

/// Whether a file holds weights, by its name, or says where they are.
bool is_of_weights(const std::string& name) {
  constexpr std::array<std::string_view, 11> kEndings = {".safetensors", ".bin",  ".h5",   ".msgpack", ".ot", ".pt",
                                                         ".pth",         ".gguf", ".onnx", ".ckpt",    ".npz"};
  const std::string_view stem =
      name.ends_with(".index.json") ? std::string_view(name).substr(0, name.size() - 11) : std::string_view(name);
  return std::any_of(kEndings.begin(), kEndings.end(), [&](const auto ending) { return stem.ends_with(ending); });
}

/// The regular files of a folder and of those inside it, relative to it, sorted; links are followed.
void list_files(const fs::path& root, const fs::path& inside, std::vector<fs::path>& files) {
  constexpr std::ptrdiff_t kDeepest = 8;
  std::error_code error;
  for (fs::directory_iterator entry(root / inside, error), end; !error && entry != end; entry.increment(error)) {
    const auto name = inside / entry->path().filename();
    std::error_code ignored;
    if (entry->is_regular_file(ignored)) {
      files.push_back(name);
    } else if (entry->is_directory(ignored) && !entry->path().filename().native().starts_with('.') &&
               std::distance(name.begin(), name.end()) <= kDeepest) {
      list_files(root, name, files);
    }
  }
  if (error) throw Error(label_of(root / inside) + ": cannot be read: " + error.message());
}

fs::path without_slash(const fs::path& path) {
  return path.has_filename() ? path : path.parent_path();
}

/// Refuses a target that is there, that could not be there, or that would be inside the model.
void check_target(const fs::path& model, const fs::path& target) {
  const auto where = label_of(target);
  if (target.empty()) throw Error("the name of the folder to be written is empty; expected a new folder");
  std::error_code error;
  const auto status = fs::symlink_status(target, error);
  if (fs::is_directory(status)) {
    const bool empty = fs::is_empty(target, error);
    if (error) throw Error(where + ": cannot be read: " + error.message());
    if (!empty) throw Error(where + ": is not empty; expected a new folder, or an empty one");
  } else if (fs::exists(status)) {
    throw Error(where + ": is there and is no folder; expected a new folder, or an empty one");
  }
  const auto parent = target.has_parent_path() ? target.parent_path() : fs::path(".");
  if (!fs::is_directory(parent, error)) throw Error(where + ": its folder does not exist; make that first");
  const auto inside = fs::weakly_canonical(parent, error).lexically_relative(fs::weakly_canonical(model, error));
  if (!inside.empty() && *inside.begin() != "..") {
    throw Error(where + ": is inside the model's own folder; expected a folder elsewhere");
  }
}

/// Another name for the file, if it is on the same file system.
bool link_file(const fs::path& from, const fs::path& to) {
  std::error_code error;
  const auto real = fs::canonical(from, error);
  return !error && ::link(real.c_str(), to.c_str()) == 0;
}

}  // namespace

WrittenModel write_edited_model(const fs::path& model, const EditStack& edits, const fs::path& given,
                                const std::stop_token& stop) {
  const auto target = without_slash(given);
  if (edits.empty()) throw Error("no edits to be written; expected --edit beside it");
  if (is_model_file(model)) {
    throw Error(label_of(model) +
                ": is a GGUF file, whose numbers of few bits would undo an edit, and none is written; " +
                "expected a model's folder; the edit itself works beside the file (--edit)");
  }
  check_target(model, target);
  const auto config = read_config(model / "config.json");
  const auto changes = edits.changes();
  const auto checkpoint = changed(Checkpoint::open(model), config, changes);
  edits.check_weights(weights_sha256(checkpoint.files(), stop));

  std::map<std::string, std::map<std::string, std::string>> in_file;  // of changed tensors: file, name there, name here
  std::set<std::string> names;
  for (const auto& change : changes) {
    in_file[checkpoint.file_of(change.tensor).filename()][checkpoint.stored(change.tensor).name] = change.tensor;
    names.insert(change.tensor);
  }
  std::set<std::string> weights;
  for (const auto& file : checkpoint.files()) weights.insert(file.filename());
  const bool is_safetensors = checkpoint.is_safetensors();
  const bool has_index = is_safetensors && !weights.contains(kSafetensorsNames.single_file);
  std::vector<fs::path> files;
  list_files(model, {}, files);
  std::sort(files.begin(), files.end());

  WrittenModel result;
  const auto absolute = target.has_parent_path() ? target : fs::path(".") / target;
  UnfinishedFolder folder(absolute);
  for (const auto& name : files) {
    const auto text = name.native();
    if (stop.stop_requested()) throw Interrupted();
    if (weights.contains(text)) {
      if (!is_safetensors) continue;
      if (const auto found = in_file.find(text); found != in_file.end()) {
        rewrite_safetensors(model / name, found->second, checkpoint, folder, stop);
        result.written.push_back(text);
      } else if (link_file(model / name, folder.path() / name)) {
        result.linked.push_back(text);
      } else {
        copy_file(model / name, folder, name, stop);
        result.copied.push_back(text);
      }
    } else if (is_of_weights(text) && !(has_index && text == kSafetensorsNames.index_file)) {
      result.left_out.push_back(text);
    } else {
      if (name.has_parent_path()) folder.make_folder(name.parent_path());
      copy_file(model / name, folder, name, stop);
      result.copied.push_back(text);
    }
  }
  if (!is_safetensors) {
    write_whole(checkpoint, names, folder, stop);
    result.written.emplace_back(kSafetensorsNames.single_file);
  }
  folder.take_place();
  return result;
}

}  // namespace rometrace
