#include "rometrace/text/input_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/utf8.hpp"

namespace rometrace {
namespace {

std::string reason(int error) {
  return std::generic_category().message(error);
}

bool is_link(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::is_symlink(path, ignored);
}

/// Length of a well-formed character that begins with `lead`.
std::size_t character_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

void append_escaped(std::string& line, unsigned char byte) {
  constexpr std::string_view kHex = "0123456789abcdef";
  if (byte == '\n') {
    line += "\\n";
  } else if (byte == '\t') {
    line += "\\t";
  } else if (byte == '\r') {
    line += "\\r";
  } else {
    line += "\\x";
    line += kHex[byte >> 4U];
    line += kHex[byte & 15U];
  }
}

bool is_control(std::string_view character) {
  const auto first = static_cast<unsigned char>(character[0]);
  if (character.size() == 1) return first < 0x20 || first == 0x7F;
  const auto second = static_cast<unsigned char>(character[1]);
  if (character.size() == 2) return first == 0xC2 && second < 0xA0;  // C1 controls: U+009B starts a terminal sequence
  // U+2028 and U+2029 break lines, U+202A..U+202E and U+2066..U+2069 reorder what is shown.
  if (character.size() != 3 || first != 0xE2) return false;
  const auto third = static_cast<unsigned char>(character[2]);
  return (second == 0x80 && third >= 0xA8 && third <= 0xAE) || (second == 0x81 && third >= 0xA6 && third <= 0xA9);
}

/// What a file is that is no regular one.
std::string_view name_of(const struct stat& status) {
  if (S_ISFIFO(status.st_mode)) return "a pipe";
  if (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode)) return "a device";
  return "a socket";
}

}  // namespace

InputFile InputFile::open(const std::filesystem::path& path, FileKind kind) {
  const std::string label = label_of(path);
  if (path.native().find('\0') != std::string::npos) throw Error(label + ": no such file");  // open would stop at it
  // A pipe that nobody writes to, and some devices, would be waited for. Regular files know no difference.
  const int at_once = kind == FileKind::kRegular ? O_NONBLOCK | O_NOCTTY : 0;
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | at_once);
  if (descriptor < 0) {
    if (errno == ENOENT)
      throw Error(label + (is_link(path) ? ": is a link to a file that is missing" : ": no such file"));
    throw Error(label + ": cannot be opened: " + reason(errno));
  }
  InputFile file(descriptor, label);  // owns the descriptor from here on, whatever is thrown
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) throw Error(label + ": cannot be opened: " + reason(errno));
  if (S_ISDIR(status.st_mode)) throw Error(label + ": is a folder; expected a file");
  file.regular_ = S_ISREG(status.st_mode);
  if (kind == FileKind::kRegular && !file.regular_) {
    throw Error(label + ": is not a regular file but " + std::string(name_of(status)) +
                "; save what it gives to a file, and name that");
  }
  file.size_ = static_cast<std::uint64_t>(status.st_size);
  return file;
}

InputFile::~InputFile() {
  close();
}

InputFile::InputFile(InputFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      regular_(other.regular_),
      size_(other.size_),
      label_(std::move(other.label_)) {}

InputFile& InputFile::operator=(InputFile&& other) noexcept {
  if (this != &other) {
    close();
    descriptor_ = std::exchange(other.descriptor_, -1);
    regular_ = other.regular_;
    size_ = other.size_;
    label_ = std::move(other.label_);
  }
  return *this;
}

void InputFile::close() noexcept {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

std::size_t InputFile::read(std::span<std::byte> buffer) {
  std::size_t filled = 0;
  while (filled < buffer.size()) {
    const ssize_t count = ::read(descriptor_, buffer.data() + filled, buffer.size() - filled);
    if (count == 0) break;
    if (count > 0) {
      filled += static_cast<std::size_t>(count);
    } else if (errno != EINTR) {
      throw Error(label_ + ": cannot be read: " + reason(errno));
    }
  }
  return filled;
}

std::string one_line(std::string_view text, std::size_t max_bytes) {
  std::string line;
  std::size_t well_formed_end = 0;
  for (std::size_t i = 0; i < text.size();) {
    if (i >= well_formed_end) {
      const std::string_view rest = text.substr(i);
      well_formed_end = i + find_invalid_utf8(rest).value_or(rest.size());
    }
    const bool is_well_formed = i < well_formed_end;
    const std::string_view character = text.substr(i, is_well_formed ? character_length(text[i]) : 1);
    const std::size_t before = line.size();
    if (!is_well_formed || is_control(character)) {
      for (const char byte : character) append_escaped(line, static_cast<unsigned char>(byte));
    } else {
      line += character;
    }
    if (line.size() > max_bytes) {
      line.resize(before);
      return line + "…";
    }
    i += character.size();
  }
  return line;
}

std::string in_quotes(std::string_view text, std::size_t max_bytes) {
  std::string result = "\"";
  for (const char character : one_line(text, max_bytes)) {
    if (character == '"') result += '\\';
    result += character;
  }
  return result + '"';
}

std::string label_of(const std::filesystem::path& path) {
  return one_line(path.native(), std::string::npos);
}

}  // namespace rometrace
