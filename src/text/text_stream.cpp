#include "text/text_stream.hpp"

#include <unistd.h>

#include <cerrno>
#include <memory>
#include <system_error>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

constexpr const char* kStandardInput = "standard input";

std::size_t read_standard_input(std::span<std::byte> buffer) {
  std::size_t filled = 0;
  while (filled < buffer.size()) {
    const ssize_t count = ::read(STDIN_FILENO, buffer.data() + filled, buffer.size() - filled);
    if (count == 0) break;
    if (count > 0) {
      filled += static_cast<std::size_t>(count);
    } else if (errno != EINTR) {
      throw Error(std::string(kStandardInput) + ": cannot be read: " + std::generic_category().message(errno));
    }
  }
  return filled;
}

}  // namespace

TextStream::TextStream(std::string label, Read read, std::size_t step, std::size_t most)
    : label_(std::move(label)), read_(std::move(read)), bytes_(step, '\0') {
  constexpr std::size_t kToTellFormats = 64;
  // The first bytes decide what the rest is.
  std::string head;
  while (head.size() < kToTellFormats && !ended_) {
    const auto bytes = read_bytes();
    head.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  if (head.empty()) throw Error(label_ + ": is empty");
  refuse_lfs_pointer(head, label_);
  if (is_gzip(head)) {
    gunzip_.emplace(label_, most);
    gunzip_->add(head, text_);
    if (ended_) gunzip_->end();
    while (text_.size() < kToTellFormats && more()) {
    }
  } else {
    text_ = std::move(head);
  }
  refuse_if_no_text(text_, label_);
}

TextStream TextStream::of_file(const std::filesystem::path& path) {
  const auto file = std::make_shared<InputFile>(InputFile::open(path, FileKind::kReadable));
  return {file->label(), [file](std::span<std::byte> buffer) { return file->read(buffer); }};
}

TextStream TextStream::of_standard_input() {
  return {kStandardInput, &read_standard_input};
}

std::span<const std::byte> TextStream::read_bytes() {
  const auto buffer = std::as_writable_bytes(std::span(bytes_));
  const auto bytes = buffer.first(read_(buffer));
  ended_ = bytes.size() < buffer.size();
  hash_.update(bytes);
  return bytes;
}

bool TextStream::more() {
  if (begin_ > 0) {
    text_.erase(0, begin_);
    begin_ = 0;
  }
  const auto before = text_.size();
  while (text_.size() == before && !ended_) {
    const auto bytes = read_bytes();
    const std::string_view piece(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (gunzip_) {
      gunzip_->add(piece, text_);
      if (ended_) gunzip_->end();
    } else {
      text_ += piece;
    }
  }
  return text_.size() > before;
}

void TextStream::drop(std::size_t bytes) {
  begin_ += bytes;
}

std::string TextStream::sha256() {
  while (!ended_) read_bytes();
  return hash_.hex_digest();
}

}  // namespace rometrace
