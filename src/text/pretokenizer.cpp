#include "rometrace/text/pretokenizer.hpp"

#include <new>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/split_pattern.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace rometrace {
namespace {

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeMatch {
  void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
};
using Code = std::unique_ptr<pcre2_code, FreeCode>;
using Match = std::unique_ptr<pcre2_match_data, FreeMatch>;

std::string pcre2_message(int code) {
  PCRE2_UCHAR message[256] = {};
  pcre2_get_error_message(code, message, sizeof message);
  return reinterpret_cast<const char*>(message);
}

Code compile(const std::string& pattern, const std::string& where) {
  int error = 0;
  PCRE2_SIZE at = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP, &error,
                          &at, nullptr));
  if (!code) {
    throw Error(where + ": PCRE2 does not take the pattern " + in_quotes(pattern, 300) + ", byte " +
                std::to_string(at) + ": " + pcre2_message(error) +
                "; expected one that it takes, and a PCRE2 library with Unicode support");
  }
  std::uint32_t matches_nothing = 0;
  pcre2_pattern_info(code.get(), PCRE2_INFO_MATCHEMPTY, &matches_nothing);
  if (matches_nothing != 0) {
    throw Error(where + ": the pattern " + in_quotes(pattern, 300) +
                " matches an empty text too; expected one that takes at least one character");
  }
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT, the interpreter gives the same parts
  return code;
}

struct SplitStage {
  Code code;
  SplitRule::Keep keep;
};

void append(std::string_view text, std::size_t begin, std::size_t end, std::vector<std::string_view>& parts) {
  if (begin < end) parts.push_back(text.substr(begin, end - begin));
}

void split(const SplitStage& stage, std::string_view text, pcre2_match_data* match,
           std::vector<std::string_view>& parts) {
  const bool between = stage.keep != SplitRule::Keep::kMatches;
  const bool matches = stage.keep != SplitRule::Keep::kBetween;
  for (std::size_t at = 0; at < text.size();) {
    // Without NO_UTF_CHECK each call would check the rest of the text: quadratic.
    const int status = pcre2_match(stage.code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                   PCRE2_NO_UTF_CHECK, match, nullptr);
    if (status == PCRE2_ERROR_NOMATCH) {
      if (between) append(text, at, text.size(), parts);
      return;
    }
    if (status < 0) {
      throw Error("text, byte " + std::to_string(at) + " of a part: PCRE2 cannot split it into words (" +
                  pcre2_message(status) + "); pass a shorter text");
    }
    const PCRE2_SIZE* found = pcre2_get_ovector_pointer(match);
    if (between) append(text, at, found[0], parts);
    if (matches) append(text, found[0], found[1], parts);
    at = found[1];
  }
}

}  // namespace

struct Pretokenizer::Impl {
  std::vector<SplitStage> stages;
};

SplitRule gpt2_split() {
  return {to_pcre2(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", "GPT-2's pattern")};
}

Pretokenizer::Pretokenizer(const std::vector<SplitRule>& stages, const std::string& where) {
  Impl impl;
  for (const auto& [pattern, keep] : stages) impl.stages.push_back({compile(pattern, where), keep});
  impl_ = std::make_unique<const Impl>(std::move(impl));
}

Pretokenizer::~Pretokenizer() = default;
Pretokenizer::Pretokenizer(Pretokenizer&&) noexcept = default;
Pretokenizer& Pretokenizer::operator=(Pretokenizer&&) noexcept = default;

std::vector<std::string_view> Pretokenizer::split(std::string_view text) const {
  std::vector<std::string_view> parts;
  append(text, 0, text.size(), parts);
  for (const SplitStage& stage : impl_->stages) {
    const Match match(pcre2_match_data_create_from_pattern(stage.code.get(), nullptr));
    if (!match) throw std::bad_alloc();
    std::vector<std::string_view> smaller;
    for (const std::string_view part : parts) rometrace::split(stage, part, match.get(), smaller);
    parts = std::move(smaller);
  }
  return parts;
}

}  // namespace rometrace
