#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/subject.hpp"
#include "rometrace/text/tokenizer.hpp"
#include "sentencepiece_model.hpp"

// tokenizer.json files that were converted from SentencePiece. Expected values: Hugging Face's tokenizers 0.23.

namespace rometrace::character_bpe_test {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::TemporaryFolder;
using Ids = std::vector<std::int32_t>;

constexpr std::int32_t kByteZero = 3;  // of <unk> <s> </s>, 256 bytes, then:
constexpr std::int32_t kSpace = 259, kA = 260, kB = 261, kAB = 262, kSpaceA = 263, kTwoSpaces = 264, kTable = 265;

json added(std::int32_t id, const char* content, bool special, bool normalized) {
  return {{"id", id},        {"content", content}, {"single_word", false},    {"lstrip", false},
          {"rstrip", false}, {"special", special}, {"normalized", normalized}};
}

const json kReplace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}};
const json kPrepend = {{"type", "Prepend"}, {"prepend", "▁"}};
const json kSplit = {
    {"type", "Split"}, {"pattern", {{"String", " "}}}, {"behavior", "MergedWithPrevious"}, {"invert", false}};

json metaspace(const char* scheme) {
  return {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", false}};
}

json sequence(const char* name, json stages) {
  return {{"type", "Sequence"}, {name, std::move(stages)}};
}

/// "ab", "▁a" and "▁▁" are merged, in this order of ranks.
json converted(json normalizer, json pre_tokenizer) {
  json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  constexpr const char* kHex = "0123456789ABCDEF";
  for (std::int32_t byte = 0; byte < 256; ++byte) {
    vocab[std::string("<0x") + kHex[byte >> 4] + kHex[byte & 15] + ">"] = kByteZero + byte;
  }
  for (const auto& [token, id] :
       {std::pair{"▁", kSpace}, {"a", kA}, {"b", kB}, {"ab", kAB}, {"▁a", kSpaceA}, {"▁▁", kTwoSpaces}}) {
    vocab[token] = id;
  }
  const json decoder = {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
                        {{"type", "ByteFallback"}},
                        {{"type", "Fuse"}},
                        {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}};
  return {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", {added(1, "<s>", true, false), added(2, "</s>", true, true), added(kTable, "b b", false, true)}},
      {"normalizer", std::move(normalizer)},
      {"pre_tokenizer", std::move(pre_tokenizer)},
      {"post_processor", nullptr},
      {"decoder", sequence("decoders", decoder)},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", "<unk>"},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", true},
        {"byte_fallback", true},
        {"ignore_merges", false},
        {"vocab", vocab},
        {"merges", {"a b", "▁ a", "▁ ▁"}}}}};
}

json prepended() {
  return converted(sequence("normalizers", {kPrepend, kReplace}), nullptr);
}

Tokenizer load(const TemporaryFolder& folder, const json& tokenizer) {
  folder.write("tokenizer.json", tokenizer.dump());
  return Tokenizer::load(folder.path());
}

Tokenizer load(const json& tokenizer) {
  const TemporaryFolder folder;
  return load(folder, tokenizer);
}

Ids ids_of(const std::vector<Token>& tokens) {
  Ids ids;
  for (const Token& token : tokens) ids.push_back(token.id);
  return ids;
}

Ids parsed(const Tokenizer& tokenizer, std::string_view text) {
  return ids_of(tokenizer.encode(text, SpecialTokens::kParse));
}

std::string complaint_about(const json& tokenizer) {
  const std::string message = testing::message_of<Error>([&] { load(tokenizer); });
  CHECK(testing::is_one_line(message));
  return message;
}

TEST_CASE("a converted tokenizer.json merges characters, and spaces as one of them") {
  const Tokenizer tokenizer = load(prepended());
  CHECK(tokenizer.size() == 266);
  CHECK(ids_of(tokenizer.encode("ab a")) == Ids{kSpace, kAB, kSpaceA});
  CHECK(ids_of(tokenizer.encode("a   b")) == Ids{kSpaceA, kTwoSpaces, kSpace, kB});
  CHECK(tokenizer.encode("").empty());
  CHECK(tokenizer.decode(ids_of(tokenizer.encode("ab a"))) == "ab a");
  CHECK(tokenizer.decode(Ids{kA, 1, kSpaceA, kByteZero + 0xE6, kByteZero + 'A', kB}) == "a<s> a\uFFFD\uFFFDb");
  CHECK(tokenizer.token_bytes(kSpaceA) == " a");
  CHECK(tokenizer.token_bytes(kByteZero + 0xE2) == "\xE2");
  CHECK(tokenizer.token_bytes(1) == "<s>");
  json pairs = prepended();
  pairs["model"]["merges"] = json::array({{"a", "b"}, {"▁", "a"}, {"▁", "▁"}});
  CHECK(ids_of(load(pairs).encode("ab a")) == Ids{kSpace, kAB, kSpaceA});
}

TEST_CASE("each way of a converted tokenizer.json to put a first space is its own") {
  struct Way {
    json tokenizer;
    Ids text;        // "a"
    Ids spaced;      // " a"
    Ids marked;      // "▁a"
    Ids stretches;   // "a<s>a<s> a", the tokens <s> read
    Ids normalized;  // "</s>a</s>"
  };
  const Ids plain{kA}, with{kSpaceA}, twice{kSpace, kSpaceA};
  const std::vector<Way> ways = {
      // A normaliser's reaches the spelling of the tokens behind it: "▁</s>".
      {prepended(), with, twice, twice, {kSpaceA, 1, kSpaceA, 1, kSpace, kSpaceA}, {2, kA, kByteZero + '<'}},
      {converted(nullptr, metaspace("first")), with, with, with, {kSpaceA, 1, kA, 1, kSpaceA}, {2, kA, 2}},
      {converted(nullptr, metaspace("always")), with, with, with, {kSpaceA, 1, kSpaceA, 1, kSpaceA}, {2, kSpaceA, 2}},
      {converted(nullptr, metaspace("never")), plain, with, with, {kA, 1, kA, 1, kSpaceA}, {2, kA, 2}},
      {converted(kReplace, nullptr), plain, with, with, {kA, 1, kA, 1, kSpaceA}, {2, kA, 2}},
      {converted(kReplace, kSplit), plain, with, with, {kA, 1, kA, 1, kSpaceA}, {2, kA, 2}},
  };
  for (const Way& way : ways) {
    CAPTURE(way.tokenizer["pre_tokenizer"].dump());
    const Tokenizer tokenizer = load(way.tokenizer);
    CHECK(ids_of(tokenizer.encode("a")) == way.text);
    CHECK(ids_of(tokenizer.encode(" a")) == way.spaced);
    CHECK(ids_of(tokenizer.encode("▁a")) == way.marked);
    CHECK(parsed(tokenizer, "a<s>a<s> a") == way.stretches);
    Ids found = parsed(tokenizer, "</s>a</s>");
    found.resize(std::min<std::size_t>(found.size(), 3));
    CHECK(found == way.normalized);
    CHECK(tokenizer.encode("").empty());
  }
}

TEST_CASE("a Metaspace that splits merges each word alone, and an old one without the field splits") {
  const auto ids = [](json fields) {
    json stage = {{"type", "Metaspace"}, {"replacement", "▁"}};
    stage.update(fields);
    return ids_of(load(converted(nullptr, stage)).encode("a   b"));
  };
  const Ids whole{kSpaceA, kTwoSpaces, kSpace, kB}, words{kSpaceA, kSpace, kSpace, kSpace, kB};
  CHECK(ids({{"prepend_scheme", "always"}, {"split", false}}) == whole);
  CHECK(ids({{"prepend_scheme", "always"}, {"split", true}}) == words);
  CHECK(ids({{"add_prefix_space", true}, {"str_rep", "▁"}}) == words);
  CHECK(ids(json::object()) == words);
  CHECK(ids({{"add_prefix_space", false}}) == Ids{kA, kSpace, kSpace, kSpace, kB});
  CHECK(ids({{"prepend_scheme", "first"}}) == words);
  const Tokenizer old = load(converted(nullptr, {{"type", "Metaspace"}, {"replacement", "▁"}}));
  const auto tokens = old.encode("é ab");  // bytes of a character that has no token, and a word
  REQUIRE(tokens.size() == 5);
  CHECK(tokens[1].begin == 0);
  CHECK(tokens[1].end == 2);
  CHECK(tokens[3].begin == 2);
  CHECK(tokens[4].begin == 3);
  CHECK(tokens[4].end == 5);
}

TEST_CASE("Llama's class has a first space of its own for a converted tokenizer.json, as in transformers 5") {
  const TemporaryFolder folder;
  const auto ids = [&](const char* config, std::string_view text) {
    folder.write("tokenizer_config.json", config);
    return parsed(load(folder, prepended()), text);
  };
  CHECK(ids("{}", " a<s>a") == Ids{kSpace, kSpaceA, 1, kSpaceA});
  CHECK(ids(R"({"tokenizer_class": "LlamaTokenizer"})", " a<s>a") == Ids{kSpaceA, 1, kA});
  CHECK(ids(R"({"tokenizer_class": "LlamaTokenizerFast", "legacy": true})", "a<s>a") == Ids{kSpaceA, 1, kSpaceA});
  CHECK(ids(R"({"tokenizer_class": "CodeLlamaTokenizer", "legacy": true})", "a<s>a") == Ids{kSpaceA, 1, kA});
  CHECK(ids(R"({"tokenizer_class": "LlamaTokenizer", "add_prefix_space": false})", "a<s>a") == Ids{kA, 1, kA});
  CHECK(ids(R"({"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": false})", "a") == Ids{kSpaceA});
  folder.write("config.json", R"({"model_type": "mistral"})");
  CHECK(ids(R"({"tokenizer_class": "LlamaTokenizer"})", " a<s>a") == Ids{kSpace, kSpaceA, 1, kSpaceA});
}

TEST_CASE("a named token of a converted tokenizer.json keeps the flags that it has there") {
  const TemporaryFolder folder;
  folder.write("tokenizer_config.json", R"({"eos_token": "</s>"})");
  CHECK(parsed(load(folder, prepended()), "</s>a") == Ids{2, kA});  // spelled "▁</s>"; and not so:
  CHECK(parsed(load(folder, prepended()), "a</s>").back() == kByteZero + '>');
}

TEST_CASE("the ranges of a converted tokenizer.json are of the text before its spaces were marked") {
  const std::string text = "a😀  b b▁é";
  using Parts = std::vector<std::string>;
  const std::vector<std::pair<json, Parts>> ways = {
      // The added token "b b" is spelled with a space in front where the normaliser puts one there.
      {prepended(), {"a", "😀", "😀", "😀", "😀", " ", " b b", "▁", "é", "é"}},
      {converted(nullptr, metaspace("first")), {"a", "😀", "😀", "😀", "😀", "  ", "b b", "▁", "é", "é"}}};
  for (const auto& [tokenizer, expected] : ways) {
    const auto tokens = load(tokenizer).encode(text);
    Parts parts;
    for (const Token& token : tokens) parts.push_back(text.substr(token.begin, token.end - token.begin));
    CHECK(parts == expected);
    const TokenRange range = find_subject(tokens, text, "😀");
    CHECK(range.begin == 1);
    CHECK(range.end == 5);
  }
  const auto begins_odd = load(prepended()).encode("b");
  REQUIRE(ids_of(begins_odd) == Ids{kSpace, kB});
  CHECK(begins_odd[0].end == 0);
  CHECK(begins_odd[1].end == 1);
}

TEST_CASE("what only spells a byte's token, or a special one, is text to a converted tokenizer.json") {
  const Tokenizer tokenizer = load(converted(kReplace, nullptr));
  CHECK(tokenizer.encode("<0x41>").size() == 6);
  CHECK(tokenizer.encode("<s>").size() == 3);
  CHECK(tokenizer.encode("<unk>").size() == 5);
}

TEST_CASE("a converted tokenizer.json without a byte refuses the characters that need it, and no others") {
  json tokenizer = converted(kReplace, nullptr);
  for (const char* byte : {"<0x61>", "<0x09>", "<0xA9>"}) tokenizer["model"]["vocab"].erase(byte);
  tokenizer["model"]["vocab"]["\t"] = kByteZero + 9;  // as in Gemma's
  CHECK(ids_of(load(tokenizer).encode("a\t")) == Ids{kA, kByteZero + 9});
  CHECK(ids_of(load(tokenizer).encode("è")) == Ids{kByteZero + 0xC3, kByteZero + 0xA8});
  CHECK(testing::message_of<Error>([&] { load(tokenizer).encode("a  é"); }) ==
        Contains("text, byte 3: the character \"é\" has no token in this vocabulary"));
}

TEST_CASE("a converted tokenizer.json goes before the tokenizer.model that it was converted from") {
  const TemporaryFolder folder;
  folder.write("tokenizer.model", testing::small_model());
  CHECK(Tokenizer::load(folder.path()).size() == 264);
  CHECK(load(folder, prepended()).size() == 266);
}

TEST_CASE("a converted tokenizer.json that would give other tokens is refused by field and value") {
  struct Refused {
    const char* pointer;
    json value;
    const char* message;
  };
  const json prepends_twice = sequence("normalizers", {kPrepend, kPrepend, kReplace});
  const std::vector<Refused> refused = {
      {"/model/type", "Unigram", R"("model.type" is "Unigram"; expected "BPE")"},
      {"/model/byte_fallback", false, R"("model.byte_fallback" is false; expected true)"},
      {"/model/ignore_merges", true, R"("model.ignore_merges" is true; expected false)"},
      {"/model/dropout", 0.1, R"("model.dropout" is 0.1; expected null)"},
      {"/model/merges/0", "<0x41> a", R"(model.merges[0]: merge "<0x41> a" is of the token of a byte, "<0x41>")"},
      {"/normalizer/normalizers/0",
       {{"type", "Precompiled"}},
       R"("normalizer.normalizers[0]" is {"type":"Precompiled"})"},
      {"/normalizer/normalizers/0/prepend", "_", R"("normalizer.normalizers[0].prepend" is "_"; expected "▁")"},
      {"/normalizer/normalizers/1/content", "_", R"("normalizer.normalizers[1].content" is "_"; expected "▁")"},
      {"/normalizer/normalizers/1/pattern", {{"Regex", " "}}, R"(.pattern" is {"Regex":" "}; expected {"String":" "})"},
      {"/normalizer", prepends_twice, R"("normalizer.normalizers[1]" is {"prepend")"},
      {"/normalizer", kPrepend,
       R"("normalizer" is {"prepend":"▁","type":"Prepend"}; expected another of type Replace)"},
      {"/pre_tokenizer", {{"type", "ByteLevel"}}, R"("pre_tokenizer" is {"type":"ByteLevel"}; expected null)"},
      {"/pre_tokenizer", sequence("pretokenizers", {kSplit, kSplit}), "expected one stage"},
      {"/decoder", {{"type", "ByteLevel"}}, R"("decoder" is {"type":"ByteLevel"}; expected {)"},
      {"/decoder/decoders/2", {{"type", "ByteFallback"}}, R"("decoder.decoders[2]" is {"type":"ByteFallback"})"},
      {"/decoder/decoders", json::array(), R"("decoder" is {"decoders":[],"type":"Sequence"}; expected Replace)"},
  };
  for (const Refused& change : refused) {
    json tokenizer = prepended();
    tokenizer[json::json_pointer(change.pointer)] = change.value;
    CAPTURE(change.pointer);
    CHECK(complaint_about(tokenizer) == Contains(change.message));
  }
  const std::vector<Refused> of_metaspace = {
      {"/pre_tokenizer/split", 1, R"("pre_tokenizer.split" is 1; expected true, false or null)"},
      {"/pre_tokenizer/prepend_scheme", "last", R"("pre_tokenizer.prepend_scheme" is "last"; expected "first")"},
      {"/pre_tokenizer/add_prefix_space", false, R"("pre_tokenizer.add_prefix_space" is false; expected true)"},
      {"/pre_tokenizer/novelty", 1, R"("pre_tokenizer.novelty" is 1; expected no such field)"},
  };
  for (const Refused& change : of_metaspace) {
    json tokenizer = converted(nullptr, metaspace("first"));
    tokenizer[json::json_pointer(change.pointer)] = change.value;
    CAPTURE(change.pointer);
    CHECK(complaint_about(tokenizer) == Contains(change.message));
  }
}

TEST_CASE("a converted tokenizer.json that lacks a part is refused by the part's name") {
  for (const char* part :
       {"/model", "/model/vocab", "/model/merges", "/model/byte_fallback", "/pre_tokenizer/replacement"}) {
    json tokenizer = converted(kReplace, metaspace("first"));
    const json::json_pointer pointer(part);
    tokenizer[pointer.parent_pointer()].erase(pointer.back());
    CHECK(complaint_about(tokenizer) == Contains("has no \"" + pointer.back() + "\""));
  }
}

}  // namespace
}  // namespace rometrace::character_bpe_test
