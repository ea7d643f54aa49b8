#include "rometrace/text/subject.hpp"

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

std::size_t find_first(std::string_view prompt, std::string_view subject) {
  if (subject.empty()) {
    throw Error("the subject of the prompt " + in_quotes(prompt, kShownTextBytes) +
                " is empty; expected a part of the prompt");
  }
  const std::size_t at = prompt.find(subject);
  if (at == std::string_view::npos) {
    throw Error("subject " + in_quotes(subject, kShownTextBytes) + " is not in the prompt " +
                in_quotes(prompt, kShownTextBytes) +
                "; expected it letter for letter; check its spelling, capitals and spaces");
  }
  return at;
}

}  // namespace

TokenRange find_subject(std::span<const Token> tokens, std::string_view prompt, std::string_view subject) {
  const std::size_t begin = find_first(prompt, subject);
  const std::size_t end = begin + subject.size();
  TokenRange range{tokens.size(), 0};
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    // An empty token (a SentencePiece model's leading "▁") shares no byte with anything.
    const bool shares_a_byte = tokens[i].begin < tokens[i].end && tokens[i].begin < end && begin < tokens[i].end;
    if (!shares_a_byte) continue;
    if (range.begin == tokens.size()) range.begin = i;
    range.end = i + 1;
  }
  if (range.begin >= range.end) {
    throw Error("subject " + in_quotes(subject, kShownTextBytes) + " of the prompt " +
                in_quotes(prompt, kShownTextBytes) +
                " has no token of its own; expected at least one; the tokeniser drops these characters");
  }
  return range;
}

}  // namespace rometrace
