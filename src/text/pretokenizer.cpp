#include "rometrace/text/pretokenizer.hpp"

#include <string>

#include "rometrace/error.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace rometrace {
namespace {

// White space is written out, because PCRE2's \s holds U+180E, which is no white space since Unicode 6.3.
constexpr std::string_view kSpace =
    R"(\x{9}-\x{D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

// PCRE2 10.42 has the tables of Unicode 14, Hugging Face's tokenizers 0.23 those of Unicode 16: here are the letters
// and numbers that came between. A newer PCRE2 knows them anyway. Checked on every code point by
// tests/python/test_tokenizer_live.py.
constexpr std::string_view kLetter =
    R"(\p{L}\x{1C89}\x{1C8A}\x{A7CB}-\x{A7CD}\x{A7DA}-\x{A7DC}\x{105C0}-\x{105F3}\x{10D4A}-\x{10D65})"
    R"(\x{10D6F}-\x{10D85}\x{10EC2}-\x{10EC4}\x{1123F}\x{11240}\x{11380}-\x{11389}\x{1138B}\x{1138E})"
    R"(\x{11390}-\x{113B5}\x{113B7}\x{113D1}\x{113D3}\x{11BC0}-\x{11BE0}\x{11F02}\x{11F04}-\x{11F10})"
    R"(\x{11F12}-\x{11F33}\x{1342F}\x{13441}-\x{13446}\x{13460}-\x{143FA}\x{16100}-\x{1611D}\x{16D40}-\x{16D6C})"
    R"(\x{18CFF}\x{1B132}\x{1B155}\x{1DF25}-\x{1DF2A}\x{1E030}-\x{1E06D}\x{1E4D0}-\x{1E4EB}\x{1E5D0}-\x{1E5ED})"
    R"(\x{1E5F0}\x{2B739}\x{2EBF0}-\x{2EE5D}\x{31350}-\x{323AF})";
constexpr std::string_view kNumber =
    R"(\p{N}\x{10D40}-\x{10D49}\x{116D0}-\x{116E3}\x{11BF0}-\x{11BF9}\x{11F50}-\x{11F59}\x{16130}-\x{16139})"
    R"(\x{16D70}-\x{16D79}\x{1CCF0}-\x{1CCF9}\x{1D2C0}-\x{1D2D3}\x{1E4F0}-\x{1E4F9}\x{1E5F1}-\x{1E5FA})";

/// GPT-2's 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ with the classes above.
/// Every character begins one of the alternatives, so the parts leave no gap.
std::string gpt2_pattern() {
  const std::string space(kSpace);
  const std::string letter(kLetter);
  const std::string number(kNumber);
  return "'s|'t|'re|'ve|'m|'ll|'d| ?[" + letter + "]+| ?[" + number + "]+| ?[^" + space + letter + number + "]+|[" +
         space + "]+(?![^" + space + "])|[" + space + "]+";
}

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

}  // namespace

struct Pretokenizer::Impl {
  Code code;
};

Pretokenizer::Pretokenizer() {
  const std::string pattern = gpt2_pattern();
  int error = 0;
  PCRE2_SIZE at = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                          PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &error, &at, nullptr));
  if (!code) {
    throw Error("PCRE2 does not take GPT-2's pattern: " + pcre2_message(error) +
                "; expected a PCRE2 library built with Unicode support");
  }
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT, the interpreter gives the same parts
  impl_ = std::make_unique<const Impl>(Impl{std::move(code)});
}

Pretokenizer::~Pretokenizer() = default;
Pretokenizer::Pretokenizer(Pretokenizer&&) noexcept = default;
Pretokenizer& Pretokenizer::operator=(Pretokenizer&&) noexcept = default;

std::vector<std::string_view> Pretokenizer::split(std::string_view text) const {
  std::vector<std::string_view> parts;
  const Match match(pcre2_match_data_create_from_pattern(impl_->code.get(), nullptr));
  if (!match) throw std::bad_alloc();
  for (std::size_t at = 0; at < text.size();) {
    // Without NO_UTF_CHECK each call would check the rest of the text: quadratic.
    const int status = pcre2_match(impl_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                   PCRE2_NO_UTF_CHECK, match.get(), nullptr);
    if (status < 0) {
      throw Error("text, byte " + std::to_string(at) + ": PCRE2 cannot split it into words (" + pcre2_message(status) +
                  "); pass a shorter text");
    }
    const std::size_t end = pcre2_get_ovector_pointer(match.get())[1];
    parts.push_back(text.substr(at, end - at));
    at = end;
  }
  return parts;
}

}  // namespace rometrace
