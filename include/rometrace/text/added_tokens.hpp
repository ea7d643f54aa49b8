#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "rometrace/text/tokenizer.hpp"

namespace rometrace {

/// A token that is found in a text by its spelling, before anything else is split.
struct AddedToken {
  std::string content;  ///< plain text, not byte alphabet; never empty
  std::int32_t id = 0;
  bool special = true;      ///< found only where special tokens are asked for (SpecialTokens::kParse)
  bool normalized = false;  ///< looked for in the normalised text, after those that are not
  bool lstrip = false;      ///< takes the white space before it
  bool rstrip = false;      ///< takes the white space behind it
};

/// Finds added tokens as Hugging Face's tokenizers do: the leftmost first, of those that begin together the longest.
class AddedTokenFinder {
 public:
  struct Match {
    std::size_t begin;  ///< bytes of the text, with the white space that the token takes
    std::size_t end;
    std::int32_t id;
  };

  explicit AddedTokenFinder(std::vector<AddedToken> tokens);
  AddedTokenFinder(const AddedTokenFinder&) = delete;
  AddedTokenFinder(AddedTokenFinder&&) noexcept = default;
  AddedTokenFinder& operator=(const AddedTokenFinder&) = delete;
  AddedTokenFinder& operator=(AddedTokenFinder&&) noexcept = default;
  ~AddedTokenFinder() = default;

  /// The tokens of `text`, which is UTF-8, in order and apart. A special token that is not asked for is no match, but
  /// nothing is looked for inside its spelling either.
  std::vector<Match> find(std::string_view text, SpecialTokens special) const;

 private:
  const AddedToken* at(std::string_view text) const;  // the longest that begins it

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string_view, std::size_t> by_content_;  // places in tokens_, whose contents they view
  std::array<std::vector<std::size_t>, 256> lengths_;             // of those that begin with a byte, longest first
};

}  // namespace rometrace
