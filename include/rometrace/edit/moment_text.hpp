#pragma once

#include <cstdint>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "rometrace/text/tokenizer.hpp"

namespace rometrace {

/// The texts that a second moment is of, as tokens.
struct MomentText {
  std::string name;                     ///< of the files, for people
  std::string sha256;                   ///< of the texts as they are read, a line feed behind each
  std::int64_t texts = 0;               ///< of one token or more
  std::int64_t cut = 0;                 ///< tokens of a text at most, the begin-of-text token among them
  std::int64_t cut_texts = 0;           ///< texts that had more
  bool more = false;                    ///< whether texts were left, as those that count had tokens enough
  std::vector<std::int32_t> token_ids;  ///< of all texts, one behind the other
  std::vector<std::int64_t> ends;       ///< [texts]: where each ends in `token_ids`

  std::int64_t tokens() const { return static_cast<std::int64_t>(token_ids.size()); }
};

/// Tokens of a text that are taken where no number is given: max(200,000, 50 F), F the width of the MLP.
std::int64_t default_moment_tokens(std::int64_t mlp_width);

/// Texts from files, one a line: UTF-8, packed by gzip or not, "-" is standard input. A line of white space only is
/// none, a carriage return at its end and a byte order mark at the file's front are left out. Each text is tokenised by
/// itself as a prompt is, special tokens that it spells read as such, and cut to `cut` tokens. Texts are taken in their
/// order as long as they have at most `most` tokens together, the first one anyway; no more of the files is read.
/// Throws Error (a file that cannot be read, a line that is not UTF-8, no text), Interrupted.
MomentText read_moment_text(std::span<const std::string> files, const Tokenizer& tokenizer, std::int64_t cut,
                            std::int64_t most, const std::stop_token& stop = {});

/// The same of texts that are known already; `name` opens messages.
MomentText moment_text_of(std::span<const std::string> texts, std::string name, const Tokenizer& tokenizer,
                          std::int64_t cut, std::int64_t most, const std::stop_token& stop = {});

}  // namespace rometrace
