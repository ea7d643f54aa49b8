#include "rometrace/study/answer_rule.hpp"

#include <string>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "sentencepiece_model.hpp"

namespace rometrace::answer_rule_test {
namespace {

using testing::TemporaryFolder;

using Pieces = std::vector<std::pair<std::string, std::string>>;  // of a token: its bytes, what it covers of the text

Pieces answer(const Tokenizer& tokenizer, const std::string& text) {
  Pieces pieces;
  for (const auto& token : encode_answer(tokenizer, text)) {
    pieces.emplace_back(tokenizer.token_bytes(token.id), text.substr(token.begin, token.end - token.begin));
  }
  return pieces;
}

TEST_CASE("an answer has the space in front that it was given, once, whatever the tokeniser puts before a text") {
  constexpr unsigned kNormal = 1;
  // Two spaces are a piece that comes before a space and the letter behind it.
  for (const auto& two_spaces : {std::string(), testing::piece("▁▁", -0.5F, kNormal)}) {
    CAPTURE(two_spaces.empty());
    const TemporaryFolder folder;
    folder.write("tokenizer.model", testing::small_model(two_spaces));
    const auto tokenizer = Tokenizer::load(folder.path());
    const auto with_space = answer(tokenizer, " a");
    CHECK((with_space == Pieces{{" a", " a"}}));
    CHECK((answer(tokenizer, "a") == Pieces{{" a", "a"}}));
    CHECK(encode_answer(tokenizer, "").empty());
  }
}

TEST_CASE("a rule asks for a number of tokens, but for a word") {
  CHECK(asked_tokens(AnswerRule::parse("token"), 3) == 1);
  CHECK(asked_tokens(AnswerRule::parse("greedy:4"), 3) == 4);
  CHECK(asked_tokens(AnswerRule::parse("object"), 3) == 3);
  CHECK(asked_tokens(AnswerRule::parse("object"), 0) == 1);
  CHECK_FALSE(asked_tokens(AnswerRule::parse("word"), 3));
}

TEST_CASE("byte-level BPE takes an answer as it is written") {
  const auto tokenizer = Tokenizer::load(ROMETRACE_SOURCE_DIR "/share/rometrace/demo");
  for (const std::string text : {" trumpet", "trumpet", "  trumpet", " ", "a b", ""}) {
    CAPTURE(text);
    const auto expected = tokenizer.encode(text), found = encode_answer(tokenizer, text);
    REQUIRE(found.size() == expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      CHECK(found[i].id == expected[i].id);
      CHECK(found[i].begin == expected[i].begin);
      CHECK(found[i].end == expected[i].end);
    }
  }
}

TEST_CASE("an answer of a token that the tokeniser does not have is refused, a prediction is not") {
  const auto tokenizer = Tokenizer::load(ROMETRACE_SOURCE_DIR "/share/rometrace/demo");
  Trace trace;
  trace.answer_ids = {0, tokenizer.size() - 1};
  trace.prediction_id = tokenizer.size();
  CHECK_NOTHROW(check_answer(tokenizer, trace));
  trace.answer_ids = {0, tokenizer.size()};
  const auto size = std::to_string(tokenizer.size()), last = std::to_string(tokenizer.size() - 1);
  CHECK(testing::message_of<Error>([&] { check_answer(tokenizer, trace); }) ==
        "the model's answer is token " + size + ", which its tokeniser does not have (0 to " + last +
            "); --target follows another answer");
}

}  // namespace
}  // namespace rometrace::answer_rule_test
