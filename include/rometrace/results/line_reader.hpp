#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "rometrace/text/input_file.hpp"

namespace rometrace {

/// The lines of a file of results, whatever they hold: in memory for one, however long the file. A pipe is waited for,
/// and a request to stop seen while it is.
class LineReader {
 public:
  /// `name`: a file, or "-" for standard input. Throws Error naming the file that cannot be opened.
  explicit LineReader(const std::string& name, std::stop_token stop = {});

  /// The next line without its newline, valid until the next call; nothing at the end. Throws Error (cannot be read, a
  /// line of more than 256 MiB), Interrupted.
  std::optional<std::string_view> next();

  std::int64_t number() const { return number_; }      ///< of the line given last, from 1
  const std::string& label() const { return label_; }  ///< the file, as messages show it
  std::string where() const { return label_ + ", line " + std::to_string(number_); }
  std::uint64_t bytes_read() const { return bytes_read_; }  ///< of size(), where that is known
  std::uint64_t size() const { return file_ && file_->is_regular() ? file_->size() : 0; }

 private:
  bool read_more();

  std::optional<InputFile> file_;  ///< none: standard input
  int descriptor_ = -1;
  std::string label_;
  std::stop_token stop_;
  std::string buffer_;
  std::size_t begin_ = 0;    ///< of the next line in buffer_
  std::size_t scanned_ = 0;  ///< no line end between begin_ and here
  std::int64_t number_ = 0;  ///< lines taken so far
  std::uint64_t bytes_read_ = 0;
  bool ended_ = false;  ///< the file has nothing more to read
};

/// Whether there is nothing but white space.
bool is_blank(std::string_view line);

}  // namespace rometrace
