#include "rometrace/edit/moment_text.hpp"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <string_view>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/digest.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/text_stream.hpp"

namespace rometrace {
namespace {

constexpr std::size_t kLongestText = std::size_t{256} << 20U;  // what a tokeniser takes
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

/// Takes texts until there are tokens enough.
class TextTaker {
 public:
  TextTaker(const Tokenizer& tokenizer, std::int64_t cut, std::int64_t most, const std::stop_token& stop)
      : tokenizer_(tokenizer), most_(most), stop_(stop) {
    text_.cut = cut;
  }

  bool full() const { return text_.more; }

  /// `where` opens messages.
  template <typename Where>
  void take(std::string_view text, Where where) {
    if (stop_.stop_requested()) throw Interrupted();
    if (text.ends_with('\r')) text.remove_suffix(1);
    if (text.find_first_not_of(" \t\r") == std::string_view::npos) return;
    std::vector<Token> tokens;
    try {
      tokens = tokenizer_.encode_prompt(text, SpecialTokens::kParse);
    } catch (const Error& error) {
      throw Error(where() + ": " + error.what());
    }
    const auto count = std::min(static_cast<std::int64_t>(tokens.size()), text_.cut);
    if (count == 0) return;
    if (text_.texts > 0 && text_.tokens() + count > most_) {
      text_.more = true;
      return;
    }
    for (const auto& token : std::span(tokens).first(static_cast<std::size_t>(count))) {
      text_.token_ids.push_back(token.id);
    }
    text_.ends.push_back(text_.tokens());
    ++text_.texts;
    if (count < static_cast<std::int64_t>(tokens.size())) ++text_.cut_texts;
    hash_.update(std::as_bytes(std::span(text)));
    hash_.update(std::as_bytes(std::span(kLineEnd)));
  }

  MomentText result(std::string name) {
    if (text_.texts == 0) throw Error(name + ": has no text; expected texts, one a line");
    text_.name = std::move(name);
    text_.sha256 = hash_.hex_digest();
    return std::move(text_);
  }

 private:
  static constexpr std::string_view kLineEnd = "\n";

  const Tokenizer& tokenizer_;
  std::int64_t most_;
  const std::stop_token& stop_;
  MomentText text_;
  Sha256 hash_;
};

void take_lines(TextStream& stream, TextTaker& taker) {
  std::int64_t number = 0;
  std::size_t searched = 0;
  const auto where = [&] { return stream.label() + ": line " + std::to_string(number); };
  if (stream.text().starts_with(kByteOrderMark)) stream.drop(kByteOrderMark.size());
  while (!taker.full()) {
    const auto text = stream.text();
    const auto end = text.find('\n', searched);
    if (end != std::string_view::npos) {
      ++number;
      taker.take(text.substr(0, end), where);
      stream.drop(end + 1);
      searched = 0;
      continue;
    }
    searched = text.size();
    if (searched > kLongestText) {
      ++number;
      throw Error(where() + ": is longer than 256 MiB; expected texts, one a line");
    }
    if (stream.more()) continue;
    if (searched > 0) {
      ++number;
      taker.take(stream.text(), where);
    }
    return;
  }
}

}  // namespace

std::int64_t default_moment_tokens(std::int64_t mlp_width) {
  return std::max<std::int64_t>(200'000, 50 * mlp_width);
}

MomentText read_moment_text(std::span<const std::string> files, const Tokenizer& tokenizer, std::int64_t cut,
                            std::int64_t most, const std::stop_token& stop) {
  if (std::count(files.begin(), files.end(), "-") > 1) {
    throw Error("standard input (-) is named twice as a text; it can be read once");
  }
  TextTaker taker(tokenizer, cut, most, stop);
  std::string names;
  for (const auto& file : files) {
    const bool is_input = file == "-";
    names +=
        (names.empty() ? "" : ", ") + (is_input ? "standard input" : label_of(std::filesystem::path(file).filename()));
    if (taker.full()) continue;
    auto stream = is_input ? TextStream::of_standard_input() : TextStream::of_file(file);
    take_lines(stream, taker);
  }
  return taker.result(std::move(names));
}

MomentText moment_text_of(std::span<const std::string> texts, std::string name, const Tokenizer& tokenizer,
                          std::int64_t cut, std::int64_t most, const std::stop_token& stop) {
  TextTaker taker(tokenizer, cut, most, stop);
  std::int64_t number = 0;
  for (const auto& text : texts) {
    ++number;
    if (taker.full()) break;
    taker.take(text, [&] { return name + ": text " + std::to_string(number); });
  }
  return taker.result(std::move(name));
}

}  // namespace rometrace
