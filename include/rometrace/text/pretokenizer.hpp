#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace rometrace {

/// How one stage of a pre-tokeniser cuts a text: at the matches of a pattern.
struct SplitRule {
  enum class Keep {
    kAll,      ///< matches and what lies between them are parts
    kMatches,  ///< what lies between is dropped
    kBetween,  ///< the matches are dropped
  };
  std::string pattern;  ///< for PCRE2 (see to_pcre2)
  Keep keep = Keep::kAll;
};

/// GPT-2's own: contractions, words, numbers, other signs, white space. The pattern is Hugging Face's
/// ByteLevel(use_regex).
SplitRule gpt2_split();

/// Cuts text where a tokeniser does before byte-pair encoding, stage by stage: each cuts the parts of the one before
/// it as if they stood alone. Immutable; safe to use from several threads.
class Pretokenizer {
 public:
  /// `where` (a file, say) opens the messages. Throws Error: a pattern that PCRE2 does not take, or that matches an
  /// empty text.
  Pretokenizer(const std::vector<SplitRule>& stages, const std::string& where);
  ~Pretokenizer();
  Pretokenizer(Pretokenizer&&) noexcept;
  Pretokenizer& operator=(Pretokenizer&&) noexcept;

  /// The parts of `text`, in order; without gaps, unless a stage drops something. Without stages: `text`, unless it is
  /// empty. `text` must be UTF-8 (`find_invalid_utf8`); the views point into it. Throws Error if PCRE2 gives up.
  std::vector<std::string_view> split(std::string_view text) const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace rometrace
