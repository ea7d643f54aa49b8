#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/text/byte_range.hpp"

namespace rometrace {

/// A text after a change of some of its characters, and which bytes of the original each byte comes from.
class AlignedText {
 public:
  /// Bytes that took the place of others; what lies between two of them is as it was.
  struct Change {
    ByteRange now;
    ByteRange before;
  };

  AlignedText(std::string text, std::vector<Change> changes) : text_(std::move(text)), changes_(std::move(changes)) {}

  const std::string& text() const { return text_; }

  /// The bytes of the original that [begin, end) of text() comes from: all of each change that it shares a byte with.
  ByteRange original(std::size_t begin, std::size_t end) const;

 private:
  std::string text_;
  std::vector<Change> changes_;  // in order
};

/// `text` in Unicode's normalisation form C by the tables of Unicode 9, which Hugging Face's tokenizers have: later
/// characters stay as they are. `text` must be UTF-8 of less than 2 GiB.
AlignedText to_nfc(std::string_view text);

/// `text` in lower case by Unicode's full mapping, as Python's str.lower(). `text` must be UTF-8 of less than 2 GiB.
AlignedText to_lower_case(std::string_view text);

}  // namespace rometrace
