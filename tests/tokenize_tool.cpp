// Test-only: tokenises the texts on stdin, so that tests in Python can compare with other implementations.
//   rometrace_tokenize FOLDER [--parse-special] [--prompt]   (--prompt: with what goes before a prompt)
// stdin: texts, each as its length (4 bytes, little-endian) and its bytes. stdout, one JSON line a text:
// {"ids": [...], "ranges": [[begin, end], ...], "round_trip": bool, "decoded": "..."} or {"error": "..."}.
#include <array>
#include <cstdint>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/text/tokenizer.hpp"
#include "rometrace/text/utf8.hpp"
#include "tools.hpp"

namespace {

using rometrace::SpecialTokens;
using rometrace::Tokenizer;

std::optional<std::string> read_text(std::istream& in) {
  std::array<unsigned char, 4> head{};
  if (!in.read(reinterpret_cast<char*>(head.data()), head.size())) return std::nullopt;
  std::uint32_t length = 0;
  for (std::size_t i = 0; i < head.size(); ++i) length |= std::uint32_t{head[i]} << (8 * i);
  std::string text(length, '\0');
  if (!in.read(text.data(), static_cast<std::streamsize>(length))) return std::nullopt;
  return text;
}

enum class Text { kPiece, kPrompt };

std::string answer(const Tokenizer& tokenizer, const std::string& text, SpecialTokens special, Text kind) {
  try {
    // Written by hand: millions of small JSON values would take most of the tests' time.
    std::string ids;
    std::string ranges;
    std::vector<std::int32_t> to_decode;
    const auto tokens =
        kind == Text::kPrompt ? tokenizer.encode_prompt(text, special) : tokenizer.encode(text, special);
    for (const auto& [id, begin, end] : tokens) {
      const char* comma = to_decode.empty() ? "" : ",";
      ids += comma + std::to_string(id);
      ranges += std::string(comma) + '[' + std::to_string(begin) + ',' + std::to_string(end) + ']';
      to_decode.push_back(id);
    }
    const std::string decoded = tokenizer.decode(to_decode);
    return R"({"ids": [)" + ids + R"(], "ranges": [)" + ranges + R"(], "round_trip": )" +
           (decoded == text ? "true" : "false") + R"(, "decoded": )" +
           nlohmann::json(rometrace::to_valid_utf8(decoded)).dump() + '}';
  } catch (const std::exception& error) {
    return nlohmann::json{{"error", error.what()}}.dump();
  }
}

}  // namespace

int rometrace::testing::tokenize(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: rometrace_tokenize FOLDER [--parse-special] [--prompt]\n";
    return 2;
  }
  auto special = SpecialTokens::kAsText;
  auto kind = Text::kPiece;
  for (int i = 2; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--parse-special") special = SpecialTokens::kParse;
    if (std::string_view(argv[i]) == "--prompt") kind = Text::kPrompt;
  }
  try {
    const Tokenizer tokenizer = Tokenizer::load(argv[1]);
    while (const auto text = read_text(std::cin)) {
      std::cout << answer(tokenizer, *text, special, kind) << '\n';
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
  return 0;
}
