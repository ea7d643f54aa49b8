#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

namespace rometrace {

/// Cuts text where GPT-2 does before byte-pair encoding: contractions, words, numbers, other signs, white space.
/// The pattern is Hugging Face's ByteLevel(use_regex); letters and numbers are those of Unicode 16 or of PCRE2's own
/// tables, whichever knows more. Immutable; safe to use from several threads.
class Pretokenizer {
 public:
  Pretokenizer();
  ~Pretokenizer();
  Pretokenizer(Pretokenizer&&) noexcept;
  Pretokenizer& operator=(Pretokenizer&&) noexcept;

  /// The parts of `text`, in order, without gaps. `text` must be UTF-8 (`find_invalid_utf8`); the views point into it.
  std::vector<std::string_view> split(std::string_view text) const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace rometrace
