#include "rometrace/text/bpe_model.hpp"

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/tokenizer.hpp"

namespace rometrace::bpe_model_test {
namespace {

using testing::Contains;
using testing::TemporaryFolder;

/// What `vocab.json` and `merges.txt` of these contents make of `text`: its tokens' bytes with "|" between them.
std::string split(const std::string& vocab, const std::string& merges, const std::string& text) {
  const TemporaryFolder folder;
  folder.write("vocab.json", vocab);
  folder.write("merges.txt", merges);
  const Tokenizer tokenizer = Tokenizer::load(folder.path());
  std::string parts;
  for (const Token& token : tokenizer.encode(text)) {
    if (!parts.empty()) parts += '|';
    parts += tokenizer.token_bytes(token.id);
  }
  return parts;
}

std::string complaint(const std::string& vocab, const std::string& merges) {
  const TemporaryFolder folder;
  const auto vocab_file = folder.write("vocab.json", vocab);
  const auto merges_file = folder.write("merges.txt", merges);
  const std::string message = testing::message_of<Error>([&] { read_vocab_and_merges(vocab_file, merges_file); });
  CHECK(testing::is_one_line(message));
  return message;
}

const std::string kAbc = R"({"a": 0, "b": 1, "c": 2, "bc": 3, "ab": 4, "abc": 5})";

TEST_CASE("merges happen in order of rank") {
  CHECK(split(kAbc, "b c\na b\n", "abc") == "a|bc");
  CHECK(split(kAbc, "a b\nb c\n", "abc") == "ab|c");
}

TEST_CASE("only listed pairs merge, even where another pair spells a token") {
  // "abc" is listed as ab + c, but "bc" is always made first: a + bc spells it and must not merge.
  CHECK(split(kAbc, "b c\na b\nab c\n", "abc") == "a|bc");
  CHECK(split(kAbc, "b c\na b\nab c\n", "abcab") == "a|bc|ab");
}

TEST_CASE("of several merges that make one token the one that can happen counts") {
  CHECK(split(kAbc, "b c\na b\nab c\na bc\n", "abc") == "abc");
  CHECK(split(kAbc, "b c\na bc\na b\nab c\n", "abc") == "abc");
  CHECK(split(kAbc, "a b\nab c\nb c\na bc\n", "abcbc") == "abc|bc");
}

TEST_CASE("a merge may come before those that make its parts") {
  CHECK(split(kAbc, "ab c\na b\n", "abcabab") == "abc|ab|ab");
}

TEST_CASE("a pair that is listed twice has the later rank") {
  CHECK(split(kAbc, "a b\nb c\na b\n", "abc") == "a|bc");
}

TEST_CASE("a token that no merge makes is never produced from text") {
  CHECK(split(kAbc, "a b\n", "abc") == "ab|c");
  CHECK(split(R"({"a": 0, "aa": 1, "aaa": 2, "aaaa": 3})", "a a\naa aa\n", "aaaaaaa") == "aaaa|aa|a");
}

using Merges = std::vector<std::pair<std::string, std::string>>;

/// GPT-2's rule, written as plainly as it goes: of the listed pairs the lowest rank, the leftmost of equals; a pair
/// that is listed twice has the later rank.
std::string split_plainly(const Merges& merges, const std::string& text) {
  std::map<std::pair<std::string, std::string>, std::size_t> ranks;
  for (std::size_t rank = 0; rank < merges.size(); ++rank) ranks[merges[rank]] = rank;
  std::vector<std::string> symbols;
  for (const char letter : text) symbols.emplace_back(1, letter);
  for (;;) {
    auto best = ranks.end();
    std::size_t best_at = 0;
    for (std::size_t at = 0; at + 1 < symbols.size(); ++at) {
      const auto found = ranks.find({symbols[at], symbols[at + 1]});
      if (found == ranks.end() || (best != ranks.end() && best->second <= found->second)) continue;
      best = found;
      best_at = at;
    }
    if (best == ranks.end()) break;
    symbols[best_at] += symbols[best_at + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best_at) + 1);
  }
  std::string parts;
  for (const auto& symbol : symbols) parts += (parts.empty() ? "" : "|") + symbol;
  return parts;
}

TEST_CASE("SentencePiece splits by GPT-2's rule, however odd the merges") {
  std::mt19937 generator(4);
  const auto below = [&](std::size_t limit) { return static_cast<std::size_t>(generator() % limit); };
  for (int round = 0; round < 150; ++round) {
    std::vector<std::string> tokens = {"a", "b", "c"};
    Merges merges;
    for (std::size_t i = below(25); i > 0; --i) {
      const std::string left = tokens[below(tokens.size())];
      const std::string right = tokens[below(tokens.size())];
      if (left.size() + right.size() > 30) continue;
      merges.emplace_back(left, right);
      if (std::find(tokens.begin(), tokens.end(), left + right) == tokens.end()) tokens.push_back(left + right);
    }
    std::shuffle(merges.begin(), merges.end(), generator);  // some come too early, some can never happen
    std::string vocab;
    for (std::size_t id = 0; id < tokens.size(); ++id) {
      vocab += (id == 0 ? "{\"" : ", \"") + tokens[id] + "\": " + std::to_string(id);
    }
    std::string lines = "#version: 0.2\n";
    for (const auto& [left, right] : merges) lines += left + " " + right + "\n";
    std::string text;
    for (int i = 0; i < 80; ++i) text += "abc"[below(static_cast<std::size_t>(round % 3 + 1))];
    CAPTURE(lines);
    CHECK(split(vocab + "}", lines, text) == split_plainly(merges, text));
  }
}

TEST_CASE("merges.txt may lack its first line, hold blank lines, end lines with CRLF, and begin merges with #") {
  CHECK(split(kAbc, "#version: 0.2\r\nb c\r\n\r\n", "abc") == "a|bc");
  CHECK(split(kAbc, "b c", "abc") == "a|bc");
  CHECK(split(R"({"#": 0, "##": 1, "###": 2})", "#version\n# #\n## #\n", "###") == "###");
  CHECK(split(R"({"#": 0, "##": 1})", "# #\n", "###") == "##|#");
}

TEST_CASE("ids may leave gaps") {
  const TemporaryFolder folder;
  const auto vocab = folder.write("vocab.json", R"({"a": 0, "b": 5})");
  const auto merges = folder.write("merges.txt", "");
  CHECK(testing::message_of<Error>([&] { read_vocab_and_merges(vocab, merges); }) == Contains("merges.txt: is empty"));
  const auto version = folder.write("merges.txt", "#version: 0.2\n");
  const BpeVocabulary vocabulary = read_vocab_and_merges(vocab, version);
  CHECK(vocabulary.tokens == std::vector<std::string>{"a", "", "", "", "", "b"});
  CHECK(vocabulary.merges.empty());
  CHECK(split(R"({"a": 0, "b": 5})", "#version: 0.2\n", "ab") == "a|b");
}

TEST_CASE("a faulty vocab.json is refused with the token that is wrong") {
  const std::string merges = "a b\n";
  CHECK(complaint("{", merges) == Contains("vocab.json: line 1, column "));
  CHECK(complaint("[]", merges) == Contains("vocab.json: found []; expected an object of token: id"));
  CHECK(complaint("{}", merges) == Contains("vocab.json: has no tokens"));
  CHECK(complaint(R"({"": 0})", merges) == Contains("has the empty string as a token"));
  CHECK(complaint(R"({"a": 1, "b": 1})", merges) == Contains("tokens \"a\" and \"b\" both have the id 1"));
  CHECK(complaint(R"({"日": 1})", merges) ==
        Contains("token \"日\" (id 1) has a character outside GPT-2's byte alphabet"));
  CHECK(complaint(R"({"a b": 1})", merges) == Contains("token \"a b\" (id 1) has a character outside"));
  for (const char* id :
       {"-1", "1.5", "\"1\"", "null", "2097152", "18446744073709551615", "99999999999999999999", "[]"}) {
    CAPTURE(id);
    CHECK(complaint(std::string(R"({"a": )") + id + "}", merges) == Contains("token \"a\" has the id "));
    CHECK(complaint(std::string(R"({"a": )") + id + "}", merges) ==
          Contains("expected a whole number from 0 to 2097151"));
  }
  CHECK(complaint("{\"" + std::string(5000, 'a') + "\": 1}", merges) ==
        Contains("is 5000 bytes long; expected at most 4096"));
}

TEST_CASE("a faulty merges.txt is refused with its line") {
  CHECK(complaint(kAbc, "#version: 0.2\na b\nab d\n") ==
        Contains("merges.txt, line 3: merge \"ab d\" needs \"d\", which is not in vocab.json"));
  CHECK(complaint(kAbc, "c c\n") ==
        Contains("merges.txt, line 1: merge \"c c\" makes \"cc\", which is not in vocab.json"));
  for (const char* line : {"a", "a b c", "a  b", " a b", "a b ", "a\tb"}) {
    CAPTURE(line);
    CHECK(complaint(kAbc, std::string("a b\n\n") + line + "\n") ==
          Contains("merges.txt, line 3: found \"" + std::string(line == std::string("a\tb") ? "a\\tb" : line) +
                   "\"; expected two tokens"));
  }
}

TEST_CASE("files that cannot be read are named") {
  const TemporaryFolder folder;
  const auto vocab = folder.write("vocab.json", kAbc);
  CHECK(testing::message_of<Error>([&] { read_vocab_and_merges(vocab, folder.path() / "merges.txt"); }) ==
        Contains("merges.txt: "));
  CHECK(testing::message_of<Error>([&] { read_vocab_and_merges(folder.path(), vocab); }) ==
        Contains(": is a folder; expected a file"));
  CHECK(testing::message_of<Error>([&] { read_tokenizer_json(folder.path() / "none"); }) ==
        Contains("none: no such file"));
}

TEST_CASE("an added token must agree with the vocabulary") {
  const TemporaryFolder folder;
  const auto vocab = folder.write("vocab.json", kAbc);
  const auto merges = folder.write("merges.txt", "a b\n");
  const auto added = [&](const char* content) {
    folder.write("added_tokens.json", content);
    return testing::message_of<Error>(
        [&] { read_vocab_and_merges(vocab, merges, read_tokenizer_config(folder.path())); });
  };
  CHECK(added(R"({"<x>": 6, "ab": 4})") == "(nothing thrown)");
  CHECK(added(R"({"ab": 7})") == Contains("added token \"ab\" has the id 7, which has the id 4 in the vocabulary"));
  CHECK(added(R"({"<x>": 4})") ==
        Contains("added token \"<x>\" has the id 4, but the vocabulary has the token \"ab\" there"));
  CHECK(added(R"({"<x>": 6, "<y>": 6})") == Contains("expected an id for each token"));
  CHECK(added(R"({"": 6})") == Contains("an added token is empty"));
  CHECK(added("[1]") == Contains("added_tokens.json: found [1]; expected an object of token: id"));
}

TEST_CASE("damaged files are an Error or a vocabulary, never another exception") {
  std::mt19937 generator(5);
  const std::string merges = "#version: 0.2\nb c\na b\nab c\n";
  for (int i = 0; i < 1000; ++i) {
    std::string files[] = {kAbc, merges};
    std::string& damaged = files[generator() % 2];
    for (unsigned n = 1 + generator() % 4; n > 0; --n)
      damaged[generator() % damaged.size()] = static_cast<char>(generator());
    try {
      split(files[0], files[1], "abc");
    } catch (const Error& error) {
      CHECK(testing::is_one_line(error.what()));
    }
  }
}

}  // namespace
}  // namespace rometrace::bpe_model_test
