#include "rometrace/text/added_tokens.hpp"

#include <algorithm>
#include <functional>
#include <utility>

#include "rometrace/text/utf8.hpp"

namespace rometrace {
namespace {

/// Unicode's White_Space.
bool is_white_space(std::string_view character) {
  constexpr std::array<std::string_view, 25> kAll = {
      "\t",     "\n",     "\v",     "\f",     "\r",     " ",      "\u0085", "\u00A0", "\u1680",
      "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008",
      "\u2009", "\u200A", "\u2028", "\u2029", "\u202F", "\u205F", "\u3000"};
  return std::ranges::find(kAll, character) != kAll.end();
}

std::size_t behind_white_space(std::string_view text, std::size_t at) {
  for (std::size_t length = 0; at < text.size(); at += length) {
    length = utf8_character_length(text.substr(at));
    if (length == 0 || !is_white_space(text.substr(at, length))) break;
  }
  return at;
}

std::size_t before_white_space(std::string_view text, std::size_t at, std::size_t least) {
  while (at > least) {
    std::size_t begin = at - 1;
    while (begin > least && (static_cast<unsigned char>(text[begin]) & 0xC0U) == 0x80U) --begin;
    if (!is_white_space(text.substr(begin, at - begin))) break;
    at = begin;
  }
  return at;
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& content = tokens_[i].content;
    by_content_.emplace(content, i);
    lengths_[static_cast<unsigned char>(content.front())].push_back(content.size());
  }
  for (auto& lengths : lengths_) {
    std::ranges::sort(lengths, std::greater());
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  }
}

const AddedToken* AddedTokenFinder::at(std::string_view text) const {
  for (const std::size_t length : lengths_[static_cast<unsigned char>(text.front())]) {
    if (length > text.size()) continue;
    if (const auto found = by_content_.find(text.substr(0, length)); found != by_content_.end()) {
      return &tokens_[found->second];
    }
  }
  return nullptr;
}

std::vector<AddedTokenFinder::Match> AddedTokenFinder::find(std::string_view text, SpecialTokens special) const {
  std::vector<Match> matches;
  if (tokens_.empty()) return matches;
  std::size_t taken = 0;  // by the match before, with its white space
  for (std::size_t begin = 0; begin < text.size();) {
    const AddedToken* token = at(text.substr(begin));
    if (token == nullptr) {
      ++begin;
      continue;
    }
    const std::size_t end = begin + token->content.size();
    const bool counts = !token->special || special == SpecialTokens::kParse;
    if (counts && begin >= taken) {
      const std::size_t from = token->lstrip ? before_white_space(text, begin, taken) : begin;
      taken = token->rstrip ? behind_white_space(text, end) : end;
      matches.push_back({from, taken, token->id});
    }
    begin = end;
  }
  return matches;
}

}  // namespace rometrace
