#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "rometrace/text/digest.hpp"
#include "text/packed_text.hpp"

namespace rometrace {

/// The text of a file, read and unpacked piece by piece: what has been dropped takes no memory.
class TextStream {
 public:
  /// Fills the buffer from the file's next bytes; returns their number, less than the buffer's only at the end.
  using Read = std::function<std::size_t(std::span<std::byte>)>;

  static constexpr std::size_t kStep = std::size_t{1} << 16U;  ///< bytes that are read at a time

  /// `label` opens messages. Throws Error: an empty file, a Git LFS pointer, as refuse_if_no_text().
  TextStream(std::string label, Read read, std::size_t step = kStep, std::size_t most = kMostUnpacked);

  /// The text of a file, or of a pipe or a device. Throws Error as InputFile::open() too.
  static TextStream of_file(const std::filesystem::path& path);
  static TextStream of_standard_input();

  const std::string& label() const { return label_; }

  /// What has been read and not dropped; valid until the next call that is not const.
  std::string_view text() const { return std::string_view(text_).substr(begin_); }

  /// Reads on, so that text() has more behind it; false where nothing is left. Throws Error.
  bool more();

  /// Leaves out the first bytes of text(), of which there are as many.
  void drop(std::size_t bytes);

  /// SHA-256 of the file as it is, packed or not; reads on to its end for that, and the text is of no use any more. To
  /// be called once.
  std::string sha256();

 private:
  std::span<const std::byte> read_bytes();

  std::string label_;
  Read read_;
  std::string bytes_;  ///< read last
  std::string text_;
  std::size_t begin_ = 0;  ///< what of text_ has not been dropped
  std::optional<Gunzip> gunzip_;
  Sha256 hash_;
  bool ended_ = false;
};

}  // namespace rometrace
