#include "hub/cache_files.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "rometrace/text/strip.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;

/// A file that is to replace another; removed unless it does.
struct Replacement {
  fs::path path;
  explicit Replacement(const fs::path& replaced) : path(replaced.native() + "." + random_digits() + ".tmp") {}
  Replacement(const Replacement&) = delete;
  Replacement& operator=(const Replacement&) = delete;
  ~Replacement() { ::unlink(path.c_str()); }

  /// Nobody else's file, and nothing that a link leads to.
  Descriptor create() const {
    Descriptor file(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW);
    if (!file.is_open()) refuse_file(path, "written", errno);
    return file;
  }
};

void copy_to(const fs::path& from, const Replacement& to) {
  InputFile input = InputFile::open(from);
  const Descriptor file = to.create();
  std::vector<std::byte> buffer(kReadBytes);
  for (std::size_t count = buffer.size(); count == buffer.size();) {
    count = input.read(buffer);
    file.write(std::span(buffer).first(count), to.path);
  }
  file.make_permanent(to.path);
}

/// Whether the file system, not this one link, is the reason.
bool knows_no_links(int error) {
  return error == EPERM || error == EOPNOTSUPP || error == ENOSYS;
}

}  // namespace

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error && !fs::is_directory(folder)) refuse_file(folder, "made", error.value());
}

BlobLock::BlobLock(const fs::path& file, const std::string& waiting_for, const Note& note,
                   const std::stop_token& stop) {
  constexpr auto kPause = std::chrono::milliseconds(100);
  bool told = false;
  for (;;) {
    if (!file_.is_open()) file_ = Descriptor(file, O_RDWR | O_CREAT);
    if (!file_.is_open()) refuse_file(file, "written", errno);
    if (file_.lock()) {
      if (file_.is_at(file)) return;
      file_.close();  // the one who had it removed the file
      continue;
    }
    if (errno != EWOULDBLOCK) return;
    if (!told && note) note("waiting for another process, which is fetching " + waiting_for);
    told = true;
    if (stop.stop_requested()) throw Interrupted();
    std::this_thread::sleep_for(kPause);
  }
}

void point_to_blob(const fs::path& pointer, const fs::path& blob) {
  const Replacement replacement(pointer);
  const fs::path target = blob.lexically_relative(pointer.parent_path());
  if (::symlink(target.c_str(), replacement.path.c_str()) != 0) {
    if (!knows_no_links(errno)) refuse_file(pointer, "written", errno);
    copy_to(blob, replacement);
  }
  rename_over(replacement.path, pointer);
}

std::optional<std::string> read_reference(const fs::path& file) {
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored) || fs::file_size(file, ignored) == 0) return std::nullopt;
  return std::string(strip(read_text_file(file)));
}

void write_reference(const fs::path& repository, const std::string& revision, const std::string& commit) {
  const fs::path file = repository / "refs" / revision;
  std::error_code ignored;
  if (fs::is_regular_file(file, ignored) && fs::file_size(file, ignored) > 0 && read_text_file(file) == commit) return;
  make_folder(file.parent_path());
  const Replacement replacement(file);
  const Descriptor written = replacement.create();
  written.write(std::as_bytes(std::span(commit)), file);
  written.make_permanent(file);
  rename_over(replacement.path, file);
}

}  // namespace rometrace
