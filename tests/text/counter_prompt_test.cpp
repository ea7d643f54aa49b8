#include "rometrace/text/counter_prompt.hpp"

#include <string>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/subject.hpp"
#include "text/tokenizer_goldens.hpp"

namespace rometrace::counter_prompt_test {
namespace {

using testing::Contains;
using Ids = std::vector<std::int32_t>;

const Tokenizer& tokenizer() {
  static const Tokenizer loaded = Tokenizer::load(testing::source_path("share/rometrace/demo"));
  return loaded;
}

Ids ids_of(std::string_view text, SpecialTokens special = SpecialTokens::kAsText) {
  Ids ids;
  for (const auto& token : tokenizer().encode(text, special)) ids.push_back(token.id);
  return ids;
}

std::string refused_subject(std::string_view prompt, std::string_view subject, std::string_view counter) {
  auto message = testing::message_of<Error>(
      [&] { counter_prompt_of_subject(tokenizer(), prompt, find_subject(prompt, subject), counter); });
  CHECK(testing::is_one_line(message));
  return message;
}

std::string refused_text(std::string_view prompt, std::string_view counter) {
  auto message = testing::message_of<Error>([&] { counter_prompt_of_text(tokenizer(), prompt, counter); });
  CHECK(testing::is_one_line(message));
  return message;
}

// How the demo's tokeniser cuts the texts below:
// Miles| Davis| plays| the, Bob| Mar|ley| plays| the, Paul| plays| the, An|na|'s, An|ge|'s, E|van|s, E|d|os, A| is

TEST_CASE("another subject takes the place of the one that is meant, token for token") {
  const auto counter =
      counter_prompt_of_subject(tokenizer(), "On drums: Bob Marley, with Bob Marley", {10, 20}, "Tom Marley");
  CHECK(counter.prompt == "On drums: Tom Marley, with Bob Marley");
  CHECK(counter.subject == "Tom Marley");
  CHECK(counter.token_ids == ids_of(counter.prompt));
  const auto second =
      counter_prompt_of_subject(tokenizer(), "On drums: Bob Marley, with Bob Marley", {27, 37}, "Tom Marley");
  CHECK(second.prompt == "On drums: Bob Marley, with Tom Marley");
  const auto tokens = tokenizer().encode("Anna's");
  const auto range = find_subject(tokens, "Anna's", "na");
  const auto within = counter_prompt_of_subject(tokenizer(), "Anna's", {2, 4}, "ge");
  REQUIRE(within.token_ids.size() == tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    CHECK((within.token_ids[i] == tokens[i].id) == (i < range.begin || i >= range.end));
  }
}

TEST_CASE("another number of tokens is refused with both tokenisations") {
  CHECK(refused_subject("Miles Davis plays the", "Miles Davis", "Bob Marley") ==
        R"("Bob Marley" makes the prompt 5 tokens ("Bob", " Mar", "ley", " plays", " the"), the prompt itself has 4 )"
        R"(("Miles", " Davis", " plays", " the"); expected the same number)");
  CHECK(refused_text("Miles Davis plays the", "Paul plays the") ==
        R"(the counter prompt has 3 tokens ("Paul", " plays", " the"), the prompt 4 ("Miles", " Davis", " plays", )"
        R"(" the"); expected the same number)");
  CHECK(refused_text("Paul plays the", "Paul") == Contains("the counter prompt has 1 token (\"Paul\"), the prompt 3"));
}

TEST_CASE("of long prompts only what differs is shown, and not too much of it") {
  const std::string front = "It is said of all of them that ", back = " plays the very same songs as all of the others";
  CHECK(refused_subject(front + "Miles Davis" + back, "Miles Davis", "Paul") ==
        Contains(R"(tokens (…, "h", "at", " Paul", " plays", " the", …), the prompt itself has )"));
  std::string many;
  for (int i = 0; i < 500; ++i) many += " the";
  const auto message = refused_text("A" + many + " b", "A b");
  CHECK(message == Contains(R"(("A", " b"), the prompt 502 ("A", " the", " the")"));
  CHECK(message == Contains(R"(" the", …, " b"); expected)"));
  CHECK(message.size() < 300);
  CHECK(refused_subject(front + "Miles", "Miles", many).size() < 700);
}

TEST_CASE("parts of characters and control characters are shown escaped") {
  CHECK(refused_text("A is", "😀 is") == Contains(R"(5 tokens ("\xf0", "\x9f", "\x98", "\x80", " is"))"));
  CHECK(refused_text("A is", "A\n\n is it") == Contains("\\n"));
}

TEST_CASE("a subject that changes other tokens is refused with what it changes") {
  CHECK(refused_subject("Evans is", "van", "do") ==
        R"("do" also changes the token "s" to "os", which is not of the subject "van": the tokens are )"
        R"(("E", "d", "os", " is"), the prompt's own ("E", "van", "s", " is"); expected no other tokens to change)");
}

TEST_CASE("texts that only look alike are told by code points") {
  const std::string found = "(its code point 6 is U+00A0 NO-BREAK SPACE, not U+0020 SPACE)";
  CHECK(refused_text("Miles Davis plays the", "Miles\u00a0Davis plays the")
            .starts_with("the counter prompt " + found + " has 7 tokens ("));
  CHECK(refused_subject("Miles Davis plays the", "Miles Davis", "Miles\u00a0Davis")
            .starts_with("\"Miles\u00a0Davis\" " + found + " makes the prompt 7 tokens ("));
}

TEST_CASE("a counter prompt without a difference is refused") {
  CHECK(refused_subject("Miles Davis plays the", "Miles", "Miles") ==
        R"("Miles" in place of "Miles" leaves the prompt's tokens as they are; expected another subject)");
  CHECK(refused_text("Miles Davis plays the", "Miles Davis plays the") == Contains("the prompt's own tokens"));
}

TEST_CASE("what is empty, missing or not text is refused") {
  CHECK(refused_subject("Miles Davis plays the", "Miles", "") ==
        "the counter subject is empty; expected what is to stand in place of \"Miles\"");
  CHECK(refused_subject("Miles Davis plays the", "Paul", "Bob") == Contains("subject \"Paul\" is not in the prompt"));
  CHECK(refused_subject("Miles Davis plays the", "Miles", "\xff") ==
        Contains("counter prompt \"\\xff Davis plays the\": "));
  CHECK(refused_text("Miles", "") == Contains("the counter prompt is empty"));
  CHECK(refused_text("Miles", "a\xc3") == Contains("counter prompt \"a\\xc3\": "));
}

TEST_CASE("a whole other prompt may differ anywhere") {
  const auto counter = counter_prompt_of_text(tokenizer(), "Miles Davis plays the", "Paul Davis is the");
  CHECK(counter.prompt == "Paul Davis is the");
  CHECK(!counter.subject);
  CHECK(counter.token_ids == ids_of("Paul Davis is the"));
}

TEST_CASE("special tokens are parsed where that is asked for") {
  const auto counter = counter_prompt_of_subject(tokenizer(), "A is", {0, 1}, "<|endoftext|>", SpecialTokens::kParse);
  CHECK(counter.token_ids == ids_of("<|endoftext|> is", SpecialTokens::kParse));
  CHECK(counter_prompt_of_text(tokenizer(), "A is", "<|endoftext|> is", SpecialTokens::kParse).token_ids ==
        counter.token_ids);
  CHECK(refused_text("A is", "<|endoftext|> is") == Contains("expected the same number"));
}

TEST_CASE("a token that goes before a prompt goes before its counter prompt too") {
  const testing::TemporaryFolder folder;
  for (const char* name : {"vocab.json", "merges.txt"}) {
    folder.write(name, testing::content_of(testing::source_path("tests/fixtures/bpe") / name));
  }
  folder.write("tokenizer_config.json", R"({"add_bos_token": true})");
  const auto with_bos = Tokenizer::load(folder.path());
  const auto counter = counter_prompt_of_text(with_bos, "the;", "the:");
  CHECK(counter.token_ids.front() == with_bos.prefix_ids().front());
  CHECK(counter.token_ids.size() == with_bos.encode("the;").size() + 1);
}

}  // namespace
}  // namespace rometrace::counter_prompt_test
