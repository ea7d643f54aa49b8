#include "cli/files/file_system.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <string_view>
#include <system_error>

#include "report/display_text.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace::cli {

namespace fs = std::filesystem;

namespace {

std::string lower_first(std::string text) {
  if (!text.empty() && text[0] >= 'A' && text[0] <= 'Z' && (text.size() < 2 || text[1] < 'A' || text[1] > 'Z')) {
    text[0] = static_cast<char>(text[0] - 'A' + 'a');
  }
  return text;
}

int sync(int (*function)(int), int descriptor) {
  while (function(descriptor) != 0) {
    if (errno == EINVAL || errno == ENOTSUP || errno == EROFS) {
      return 0;
    }
    if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

}  // namespace

std::string shown(const fs::path& path) {
  return display(path.native()).text;
}

bool same_file(const std::string& a, const std::string& b) {
  std::error_code ignored;
  return a == b || (a != "-" && b != "-" && fs::equivalent(a, b, ignored));
}

void check_not_output(const std::string& input, const std::optional<std::string>& output) {
  if (!output || *output == "-" || !same_file(input, *output)) return;
  throw Error(label_of(input) + ": is to be read and written; name another file with -o");
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

std::string system_message(int error) {
  return lower_first(std::generic_category().message(error));
}

std::string writing_advice(int error, const fs::path& path) {
  const std::string elsewhere = "; choose another file with -o";
  switch (error) {
    case ENOENT:
      if (std::error_code ignored; fs::is_directory(folder_of(path), ignored)) {
        return "no file can be made in this folder" + elsewhere;  // such as /proc
      }
      return "the folder " + shown(folder_of(path)) + " does not exist; make it or choose another with -o";
    case ENOTDIR:
      return shown(folder_of(path)) + " is not a folder" + elsewhere;
    case EACCES:
    case EPERM:
      return "no permission to write here" + elsewhere;
    case EROFS:
      return "the file system is read-only" + elsewhere;
    case ENOSPC:
    case EDQUOT:
      return "no space left; free some or choose another file with -o";
    case EPIPE:
      return "broken pipe: the reader has gone before the end";
    case ENXIO:
      return "nothing there takes what is written" + elsewhere;
    case EBUSY:
      return "a mount point, which cannot be replaced" + elsewhere;
    default:
      return system_message(error) + elsewhere;
  }
}

std::optional<int> own_descriptor(const fs::path& path) {
  const std::string& name = path.native();
  if (name == "/dev/stdout") {
    return STDOUT_FILENO;
  }
  if (name == "/dev/stderr") {
    return STDERR_FILENO;
  }
  for (const std::string_view folder : {"/dev/fd/", "/proc/self/fd/"}) {
    if (name.starts_with(folder)) {
      int number = 0;
      const char* end = name.data() + name.size();
      const auto parsed = std::from_chars(name.data() + folder.size(), end, number);
      if (parsed.ec == std::errc() && parsed.ptr == end && number >= 0) {
        return number;
      }
    }
  }
  return std::nullopt;
}

fs::path behind_links(fs::path path) {
  constexpr int kMostLinks = 40;  // Linux's own limit
  for (int i = 0; i < kMostLinks; ++i) {
    std::error_code error;
    if (!fs::is_symlink(path, error)) {
      return path;
    }
    const fs::path next = fs::read_symlink(path, error);
    if (error) {
      return path;
    }
    path = next.is_absolute() ? next : path.parent_path() / next;
  }
  return path;
}

int open_retrying(const fs::path& path, int flags, mode_t mode) {
  int descriptor = -1;
  do {
    descriptor = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

int make_permanent(int descriptor) {
  return sync(::fsync, descriptor);
}

int make_content_permanent(int descriptor) {
  return sync(::fdatasync, descriptor);
}

void make_folder_permanent(const fs::path& folder) {
  const int descriptor = open_retrying(folder, O_RDONLY | O_DIRECTORY);
  if (descriptor >= 0) {
    make_permanent(descriptor);  // the file itself is safe; a folder that cannot be synced is no failure
    ::close(descriptor);
  }
}

}  // namespace rometrace::cli
