#include "rometrace/results/line_reader.hpp"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "rometrace/error.hpp"

namespace rometrace {

LineReader::LineReader(const std::string& name, std::stop_token stop) : stop_(std::move(stop)) {
  if (name == "-") {
    descriptor_ = STDIN_FILENO;
    label_ = "standard input";
  } else {
    file_ = InputFile::open(name, FileKind::kReadable);
    descriptor_ = file_->descriptor();
    label_ = file_->label();
  }
}

std::optional<std::string_view> LineReader::next() {
  while (true) {
    const auto end = buffer_.find('\n', scanned_);
    if (end != std::string::npos) {
      const auto text = std::string_view(buffer_).substr(begin_, end - begin_);
      begin_ = scanned_ = end + 1;
      ++number_;
      return text;
    }
    scanned_ = buffer_.size();
    if (!read_more()) break;
  }
  if (begin_ == buffer_.size()) return std::nullopt;
  ++number_;
  return std::string_view(buffer_).substr(std::exchange(begin_, buffer_.size()));
}

bool LineReader::read_more() {
  constexpr std::size_t kStep = 1U << 18U;
  constexpr std::size_t kLongestLine = 1U << 28U;
  if (stop_.stop_requested()) throw Interrupted();
  if (ended_) return false;
  buffer_.erase(0, begin_);
  scanned_ -= std::exchange(begin_, 0);
  if (buffer_.size() > kLongestLine) {
    throw Error(label_ + ", line " + std::to_string(number_ + 1) +
                ": longer than 256 MiB; expected results of rometrace");
  }
  const auto before = buffer_.size();
  buffer_.resize(before + kStep);
  ssize_t count = -1;
  while (count < 0) {
    // In a read() that waits for a pipe's writer a request to stop would not be seen.
    constexpr int kMilliseconds = 100;
    pollfd ready{descriptor_, POLLIN, 0};
    if (::poll(&ready, 1, kMilliseconds) <= 0) {
      if (stop_.stop_requested()) throw Interrupted();
      continue;
    }
    count = ::read(descriptor_, buffer_.data() + before, kStep);
    if (count < 0 && errno != EINTR && errno != EAGAIN) {
      throw Error(label_ + ": cannot be read: " + std::generic_category().message(errno));
    }
  }
  buffer_.resize(before + static_cast<std::size_t>(count));
  bytes_read_ += static_cast<std::uint64_t>(count);
  ended_ = count == 0;
  return !ended_;
}

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

}  // namespace rometrace
