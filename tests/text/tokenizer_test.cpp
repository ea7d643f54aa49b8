#include "rometrace/text/tokenizer.hpp"

#include <algorithm>
#include <bit>
#include <random>
#include <sstream>
#include <string>
#include <thread>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/bpe_model.hpp"
#include "rometrace/text/subject.hpp"
#include "sentencepiece_model.hpp"
#include "text/tokenizer_goldens.hpp"

namespace rometrace::tokenizer_test {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::small_model;
using testing::TemporaryFolder;
using Ids = std::vector<std::int32_t>;

const std::filesystem::path kFixture = testing::source_path("tests/fixtures/bpe");

const Tokenizer& fixture() {
  static const Tokenizer loaded = Tokenizer::load(kFixture);
  return loaded;
}

Ids ids_of(const std::vector<Token>& tokens) {
  Ids ids;
  for (const Token& token : tokens) ids.push_back(token.id);
  return ids;
}

/// A text of up to `length` code points of all planes.
std::string random_text(std::mt19937& generator, unsigned length) {
  std::string text;
  for (auto i = generator() % (length + 1); i > 0; --i) {
    const auto plane_bits = static_cast<unsigned>(7 + generator() % 14);  // short code points as often as long ones
    unsigned point = static_cast<unsigned>(generator()) % (1U << plane_bits);
    if (point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF)) point = 0x20;
    if (point < 0x80) {
      text += static_cast<char>(point);
      continue;
    }
    const int trail = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    constexpr unsigned kLead[] = {0, 0xC0, 0xE0, 0xF0};
    text += static_cast<char>(kLead[trail] | point >> (6 * trail));
    for (int i_trail = trail - 1; i_trail >= 0; --i_trail) {
      text += static_cast<char>(0x80 | (point >> (6 * i_trail) & 63));
    }
  }
  return text;
}

/// The fixture as a tokenizer.json; `merges_as_pairs`: ["a", "b"] instead of "a b".
json fixture_as_tokenizer_json(bool merges_as_pairs = false) {
  json merges = json::array();
  std::istringstream lines(testing::content_of(kFixture / "merges.txt"));
  std::string left;
  std::string right;
  std::getline(lines, left);  // #version
  while (lines >> left >> right) merges.push_back(merges_as_pairs ? json{left, right} : json(left + " " + right));
  const json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens",
           {{{"id", 0},
             {"content", "<|endoftext|>"},
             {"single_word", false},
             {"lstrip", false},
             {"rstrip", false},
             {"normalized", false},
             {"special", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", byte_level},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", json::parse(testing::content_of(kFixture / "vocab.json"))},
            {"merges", merges}}}};
}

json split_then_byte_level(const json& pattern, const char* behavior) {
  const json split = {{"type", "Split"}, {"pattern", pattern}, {"behavior", behavior}, {"invert", false}};
  const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  return {{"type", "Sequence"}, {"pretokenizers", {split, byte_level}}};
}

/// A post-processor that puts the token `id` before the text, which it calls `sequence`.
json template_of(int id, const char* sequence) {
  return {
      {"type", "TemplateProcessing"},
      {"single",
       {{{"SpecialToken", {{"id", "<|endoftext|>"}, {"type_id", 0}}}},
        {{"Sequence", {{"id", sequence}, {"type_id", 0}}}}}},
      {"pair", json::array()},
      {"special_tokens", {{"<|endoftext|>", {{"id", "<|endoftext|>"}, {"ids", {id}}, {"tokens", {"<|endoftext|>"}}}}}}};
}

/// That post-processor with something else for the token's ids.
json with_ids(const json& ids) {
  json post_processor = template_of(0, "A");
  post_processor["special_tokens"]["<|endoftext|>"]["ids"] = ids;
  return post_processor;
}

std::string complaint_about(const TemporaryFolder& folder) {
  const std::string message = testing::message_of<Error>([&] { Tokenizer::load(folder.path()); });
  CHECK(testing::is_one_line(message));
  return message;
}

TEST_CASE("ids equal those of Hugging Face's tokenizers") {
  const auto& goldens = testing::tokenizer_goldens()["texts"];
  REQUIRE(goldens.size() >= 250);
  for (const auto& golden : goldens) {
    const std::string text = golden["text"];
    CAPTURE(text);
    CHECK(ids_of(fixture().encode(text)) == golden["ids"].get<Ids>());
    CHECK(ids_of(fixture().encode(text, SpecialTokens::kParse)) == golden["ids_with_special_parsed"].get<Ids>());
  }
}

TEST_CASE("decoding gives back the bytes of any UTF-8 text") {
  std::mt19937 generator(1);
  for (int i = 0; i < 3000; ++i) {
    const std::string text = random_text(generator, 40);
    CAPTURE(text);
    CHECK(fixture().decode(ids_of(fixture().encode(text))) == text);
  }
  for (const auto& golden : testing::tokenizer_goldens()["texts"]) {
    const std::string text = golden["text"];
    CHECK(fixture().decode(ids_of(fixture().encode(text, SpecialTokens::kParse))) == text);
  }
}

TEST_CASE("the tokens' ranges tile the text, and each holds the token's bytes") {
  std::mt19937 generator(2);
  for (int i = 0; i < 1000; ++i) {
    const std::string text = random_text(generator, 40) + "<|endoftext|>";
    for (const auto special : {SpecialTokens::kAsText, SpecialTokens::kParse}) {
      std::size_t at = 0;
      for (const Token& token : fixture().encode(text, special)) {
        REQUIRE(token.begin == at);
        REQUIRE(text.substr(token.begin, token.end - token.begin) == fixture().token_bytes(token.id));
        at = token.end;
      }
      REQUIRE(at == text.size());
    }
  }
}

TEST_CASE("the subject is found even where a character is split over tokens") {
  const std::string prompt = "The dish 𝔖öř is";
  const auto tokens = fixture().encode(prompt);
  const TokenRange range = find_subject(tokens, prompt, "𝔖öř");
  CHECK(tokens[range.begin].begin <= prompt.find("𝔖"));
  CHECK(tokens[range.end - 1].end >= prompt.find(" is"));
  CHECK(range.end - range.begin >= 3);
}

TEST_CASE("a prompt cannot spell a special token unless it is asked for") {
  const Ids as_text = ids_of(fixture().encode("a<|endoftext|>"));
  CHECK(std::ranges::find(as_text, 0) == as_text.end());
  CHECK(ids_of(fixture().encode("<|endoftext|><|endoftext|>", SpecialTokens::kParse)) == Ids{0, 0});
}

TEST_CASE("the longest of the special tokens that begin together counts, and the leftmost first") {
  const TemporaryFolder folder;
  folder.write("vocab.json", testing::content_of(kFixture / "vocab.json"));
  folder.write("merges.txt", testing::content_of(kFixture / "merges.txt"));
  folder.write("added_tokens.json", R"({"<x>": 700, "<x><y>": 701, "><": 702, "日 本": 705})");
  const Tokenizer tokenizer = Tokenizer::load(folder.path());
  const auto parse = [&](const char* text) { return ids_of(tokenizer.encode(text, SpecialTokens::kParse)); };
  CHECK(parse("<x>") == Ids{700});
  CHECK(parse("<x><y>") == Ids{701});
  CHECK(parse("<x><x><y>") == Ids{700, 701});
  CHECK(parse("日 本") == Ids{705});
  CHECK(tokenizer.size() == 706);
  CHECK(tokenizer.token_bytes(705) == "日 本");
  CHECK(tokenizer.token_bytes(703) == "");  // an id that no token has
}

TEST_CASE("tokenizer.json gives the ids of vocab.json and merges.txt, whichever way it writes its merges") {
  for (const bool pairs : {false, true}) {
    const TemporaryFolder folder;
    folder.write("tokenizer.json", fixture_as_tokenizer_json(pairs).dump());
    const Tokenizer tokenizer = Tokenizer::load(folder.path());
    CHECK(tokenizer.size() == fixture().size());
    for (const auto& golden : testing::tokenizer_goldens()["texts"]) {
      const std::string text = golden["text"];
      CHECK(ids_of(tokenizer.encode(text)) == golden["ids"].get<Ids>());
      CHECK(ids_of(tokenizer.encode(text, SpecialTokens::kParse)) == golden["ids_with_special_parsed"].get<Ids>());
    }
  }
}

TEST_CASE("a tokenizer.json that would give other tokens is refused by field and value") {
  struct Refused {
    const char* pointer;
    json value;
    const char* message;
  };
  const std::vector<Refused> refused = {
      {"/normalizer", {{"type", "NFKC"}}, R"("normalizer" is {"type":"NFKC"}; expected null or type NFC)"},
      {"/normalizer",
       {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}, {{"type", "Lowercase"}}}}},
       R"("normalizer.normalizers[1]" is {"type":"Lowercase"}; expected null or type NFC)"},
      {"/pre_tokenizer",
       {{"type", "Whitespace"}},
       R"("pre_tokenizer" is {"type":"Whitespace"}; expected type ByteLevel)"},
      {"/pre_tokenizer", nullptr, R"("pre_tokenizer" is null; expected type ByteLevel)"},
      {"/pre_tokenizer/add_prefix_space", 1, R"("pre_tokenizer.add_prefix_space" is 1; expected true or false)"},
      {"/pre_tokenizer/use_regex", nullptr, R"("pre_tokenizer.use_regex" is null; expected true or false)"},
      {"/pre_tokenizer/novelty", 1, R"("pre_tokenizer.novelty" is 1; expected no such field)"},
      {"/pre_tokenizer",
       {{"type", "Sequence"}, {"pretokenizers", {{{"type", "Punctuation"}}, {{"type", "ByteLevel"}}}}},
       R"("pre_tokenizer.pretokenizers[0]" is {"type":"Punctuation"}; expected type Split or Digits)"},
      {"/pre_tokenizer",
       {{"type", "Sequence"}, {"pretokenizers", json::array()}},
       R"("pre_tokenizer" is {"pretokenizers":[],"type":"Sequence"}; expected type ByteLevel)"},
      {"/pre_tokenizer", split_then_byte_level({{"Regex", "."}}, "Isolated"), R"(byte 0: found ".")"},
      {"/pre_tokenizer", split_then_byte_level({{"Glob", "*"}}, "Isolated"),
       R"(pretokenizers[0].pattern" is {"Glob":"*"}; expected {"Regex": "..."} or {"String": "..."})"},
      {"/pre_tokenizer", split_then_byte_level({{"String", "a"}}, "MergedWithNext"),
       R"(pretokenizers[0].behavior" is "MergedWithNext"; expected "Isolated" or "Removed")"},
      {"/pre_tokenizer",
       {{"type", "Metaspace"}, {"replacement", "▁"}},
       R"("model.byte_fallback" is false; expected true)"},
      {"/post_processor", {{"type", "BertProcessing"}}, R"("post_processor" is {"type":"BertProcessing"})"},
      {"/post_processor", {{"type", "TemplateProcessing"}}, R"(post_processor: has no "single")"},
      {"/post_processor", template_of(0, "B"), R"("post_processor.single" is)"},
      {"/post_processor",
       {{"type", "TemplateProcessing"}, {"single", {{{"Sequence", "A"}}}}},
       R"(post_processor: found "A"; expected an object)"},
      {"/post_processor",
       {{"type", "TemplateProcessing"}, {"single", {{{"SpecialToken", "<s>"}}}}},
       R"(post_processor: found "<s>"; expected an object)"},
      {"/post_processor", with_ids("abc"), R"("post_processor.special_tokens" is {"<|endoftext|>":{"id")"},
      {"/post_processor", template_of(9999, "A"), "post_processor: the id 9999 is not in the vocabulary"},
      {"/decoder", {{"type", "WordPiece"}}, R"("decoder" is {"type":"WordPiece"}; expected type ByteLevel)"},
      {"/model/type", "Unigram", R"("model.type" is "Unigram"; expected "BPE")"},
      {"/model/dropout", 0.1, R"("model.dropout" is 0.1; expected null)"},
      {"/model/continuing_subword_prefix", "##", R"("model.continuing_subword_prefix" is "##"; expected null)"},
      {"/model/end_of_word_suffix", "</w>", R"("model.end_of_word_suffix" is "</w>"; expected null)"},
      {"/model/byte_fallback", true, R"("model.byte_fallback" is true; expected false)"},
      {"/model/ignore_merges", 1, R"("model.ignore_merges" is 1; expected false)"},
      {"/model/novelty", 1, R"("model.novelty" is 1; expected no such field)"},
      {"/novelty", 1, R"("novelty" is 1; expected no such field)"},
      {"/added_tokens/0/lstrip", 1, R"(added token "<|endoftext|>" has "lstrip": 1; expected true or false)"},
      {"/added_tokens/0/single_word", true, R"(has "single_word": true)"},
      {"/added_tokens/0/id", 5, R"(added token "<|endoftext|>" has the id 5, which has the id 0 in the vocabulary)"},
      {"/added_tokens/0/content", "x y", R"(has the id 0, but the vocabulary has the token "<|endoftext|>" there)"},
      {"/added_tokens/0/content", 7, R"("content" is 7; expected the token's text)"},
      {"/added_tokens", {{"a", 1}}, R"("added_tokens" is {"a":1}; expected a list)"},
      {"/model/merges", "a b", R"("model.merges" is "a b"; expected a list)"},
      {"/model/merges/3", 3, R"(model.merges[3]: found 3; expected "a b" or ["a", "b"])"},
      {"/model/merges/3", "a", R"(model.merges[3]: found "a"; expected two tokens with one space between them)"},
      {"/model/merges/3", "a qqq", R"(model.merges[3]: merge "a qqq" needs "qqq", which is not in "model.vocab")"},
      {"/model/vocab", json::array(), "model.vocab: found []; expected an object of token: id"},
      {"/model/vocab", json::object(), "model.vocab: has no tokens"},
      {"/model", 3, R"("model" is 3; expected an object)"},
  };
  for (const Refused& change : refused) {
    json tokenizer = fixture_as_tokenizer_json();
    tokenizer[json::json_pointer(change.pointer)] = change.value;
    const TemporaryFolder folder;
    folder.write("tokenizer.json", tokenizer.dump());
    CAPTURE(change.pointer);
    CHECK(complaint_about(folder) == Contains(change.message));
  }
}

TEST_CASE("a tokenizer.json that lacks a part is refused by the part's name") {
  for (const char* part :
       {"/model", "/model/vocab", "/model/merges", "/pre_tokenizer", "/pre_tokenizer/add_prefix_space"}) {
    json tokenizer = fixture_as_tokenizer_json();
    const json::json_pointer pointer(part);
    tokenizer[pointer.parent_pointer()].erase(pointer.back());
    const TemporaryFolder folder;
    folder.write("tokenizer.json", tokenizer.dump());
    CHECK(complaint_about(folder) == Contains("has no \"" + pointer.back() + "\""));
  }
}

TEST_CASE("files beside vocab.json that change the tokens are heeded or refused") {
  const TemporaryFolder folder;
  folder.write("vocab.json", testing::content_of(kFixture / "vocab.json"));
  folder.write("merges.txt", testing::content_of(kFixture / "merges.txt"));
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": false,
    "added_tokens_decoder": {"700": {"content": "<pad>", "lstrip": false}}})");
  CHECK(ids_of(Tokenizer::load(folder.path()).encode("<pad>", SpecialTokens::kParse)) == Ids{700});

  folder.write("tokenizer_config.json", R"({"add_prefix_space": true})");
  CHECK(ids_of(Tokenizer::load(folder.path()).encode("the river")) == ids_of(fixture().encode(" the river")));
  folder.write("tokenizer_config.json", R"({"add_prefix_space": "yes"})");
  CHECK(complaint_about(folder) == Contains("\"add_prefix_space\" is \"yes\"; expected true or false"));
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "Qwen2Tokenizer"})");
  CHECK(complaint_about(folder) ==
        Contains("tokenizer_config.json: \"tokenizer_class\" is \"Qwen2Tokenizer\"; expected GPT2Tokenizer"));
  folder.write("tokenizer_config.json", "{}");
  folder.write("config.json", R"({"tokenizer_class": "Qwen2Tokenizer"})");
  CHECK(complaint_about(folder) == Contains("/config.json: \"tokenizer_class\" is \"Qwen2Tokenizer\""));
  folder.write("config.json", R"({"tokenizer_class": "LlamaTokenizer"})");
  CHECK(complaint_about(folder) == Contains("/config.json: \"tokenizer_class\" is \"LlamaTokenizer\""));
  folder.write("config.json", "{}");
  folder.write("added_tokens.json", R"({"<pad>": 0})");
  CHECK(complaint_about(folder) == Contains("/added_tokens.json: added token \"<pad>\" has the id 0"));
  folder.write("added_tokens.json", "{}");
  folder.write("special_tokens_map.json", R"({"bos_token": "<none>"})");
  folder.write("tokenizer_config.json", R"({"add_bos_token": true})");
  CHECK(complaint_about(folder) == Contains("/special_tokens_map.json: \"bos_token\" is \"<none>\", which is not in"));
  folder.write("special_tokens_map.json", "{}");
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {"x": {"content": "<pad>"}}})");
  CHECK(complaint_about(folder) == Contains("token \"<pad>\" has the id \"x\"; expected a whole number"));
  folder.write("tokenizer_config.json", "{}");

  json tokenizer = fixture_as_tokenizer_json();
  tokenizer["normalizer"] = {{"type", "NFKD"}};
  folder.write("tokenizer.json", tokenizer.dump());
  CHECK(complaint_about(folder) == Contains("tokenizer.json: \"normalizer\" is"));
}

TEST_CASE("tokenizer.json goes before the vocab.json and merges.txt beside it") {
  const TemporaryFolder folder;
  folder.write("vocab.json", testing::content_of(kFixture / "vocab.json"));
  folder.write("merges.txt", testing::content_of(kFixture / "merges.txt"));
  json tokenizer = fixture_as_tokenizer_json();
  tokenizer["pre_tokenizer"] = split_then_byte_level({{"Regex", R"(\p{N})"}}, "Removed");
  folder.write("tokenizer.json", tokenizer.dump());
  CHECK(ids_of(Tokenizer::load(folder.path()).encode("the 12")) == ids_of(fixture().encode("the ")));
  const Ids as_the_file_says = ids_of(Tokenizer::load(folder.path()).encode("the river"));
  folder.write("tokenizer_config.json", R"({"add_prefix_space": true})");
  CHECK(complaint_about(folder) == Contains("\"add_prefix_space\" is true, that of"));
  folder.write("tokenizer_config.json", R"({"add_prefix_space": true, "tokenizer_class": "PreTrainedTokenizerFast"})");
  CHECK(ids_of(Tokenizer::load(folder.path()).encode("the river")) == as_the_file_says);
}

TEST_CASE("an added token keeps its flags when it is named, but for being special") {
  json tokenizer = fixture_as_tokenizer_json();
  const auto added = [](int id, const char* content, bool special, bool lstrip) {
    return json{{"id", id}, {"content", content}, {"special", special}, {"lstrip", lstrip}};
  };
  tokenizer["added_tokens"] = {added(700, "<mask>", true, true), added(701, "<x>", false, false),
                               added(702, "<pad>", false, true)};
  const TemporaryFolder folder;
  folder.write("tokenizer.json", tokenizer.dump());
  folder.write("tokenizer_config.json", R"({"mask_token": "<mask>", "pad_token": "<pad>", "unk_token": "the",
    "additional_special_tokens": ["<x>"]})");
  const Tokenizer loaded = Tokenizer::load(folder.path());
  CHECK(ids_of(loaded.encode(" <mask>", SpecialTokens::kParse)) == Ids{700});
  CHECK(ids_of(loaded.encode("<x>")) == Ids{701});
  CHECK(ids_of(loaded.encode(" <pad>", SpecialTokens::kParse)) == Ids{702});
  CHECK(ids_of(loaded.encode("<pad>")).size() > 1);
}

TEST_CASE("what goes before a prompt comes from the template, else from the configuration") {
  const TemporaryFolder folder;
  const auto prompt = [&] { return Tokenizer::load(folder.path()).encode_prompt("the river"); };
  const auto text = fixture().encode("the river");
  folder.write("vocab.json", testing::content_of(kFixture / "vocab.json"));
  folder.write("merges.txt", testing::content_of(kFixture / "merges.txt"));
  CHECK(ids_of(prompt()) == ids_of(text));
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "GPT2Tokenizer", "add_bos_token": true})");
  CHECK(prompt().size() == text.size() + 1);
  CHECK(prompt().front().id == 0);
  CHECK(prompt().front().end == 0);
  folder.write("tokenizer_config.json",
               R"({"add_bos_token": true, "bos_token": {"content": "a", "special": true}})");  // as OPT's
  CHECK(Tokenizer::load(folder.path()).token_bytes(prompt().front().id) == "a");
  folder.write("tokenizer_config.json", R"({"add_bos_token": true, "bos_token": "<none>"})");
  CHECK(complaint_about(folder) == Contains("\"bos_token\" is \"<none>\", which is not in the vocabulary"));

  json tokenizer = fixture_as_tokenizer_json();
  folder.write("tokenizer_config.json", R"({"add_bos_token": true})");
  for (const json& without : {tokenizer["post_processor"], json()}) {  // transformers heeds the file alone
    tokenizer["post_processor"] = without;
    folder.write("tokenizer.json", tokenizer.dump());
    CHECK(ids_of(prompt()) == ids_of(text));
  }

  folder.write("tokenizer_config.json", R"({"add_bos_token": false})");
  tokenizer["post_processor"] = template_of(0, "A");
  tokenizer["post_processor"]["single"].push_back(tokenizer["post_processor"]["single"][0]);  // left off
  folder.write("tokenizer.json", tokenizer.dump());
  CHECK(prompt().size() == text.size() + 1);
  CHECK(prompt().front().id == 0);
  CHECK(ids_of(Tokenizer::load(folder.path()).encode("the river")) == ids_of(text));
  CHECK(ids_of(Tokenizer::load(folder.path()).encode_prompt("<|endoftext|>", SpecialTokens::kParse)) == Ids{0, 0});
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "GPTNeoXTokenizerFast"})");  // has its own
  CHECK(ids_of(prompt()) == ids_of(text));
}

TEST_CASE("a token before the prompt is never the subject's") {
  const TemporaryFolder folder;
  folder.write("vocab.json", testing::content_of(kFixture / "vocab.json"));
  folder.write("merges.txt", testing::content_of(kFixture / "merges.txt"));
  folder.write("tokenizer_config.json", R"({"add_bos_token": true})");
  const Tokenizer tokenizer = Tokenizer::load(folder.path());
  const auto tokens = tokenizer.encode_prompt("the river");
  CHECK(find_subject(tokens, "the river", "the").begin == 1);
  CHECK(find_subject(tokens, "the river", "the river").end == tokens.size());
}

TEST_CASE("a character that the normaliser changes is covered by each of its tokens") {
  json tokenizer = fixture_as_tokenizer_json();
  tokenizer["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}}}};
  const TemporaryFolder folder;
  folder.write("tokenizer.json", tokenizer.dump());
  const std::string text = "x \u1112\u1161\u11ab e\u0301y";
  const auto tokens = Tokenizer::load(folder.path()).encode(text);
  CHECK(ids_of(tokens) == ids_of(fixture().encode("x \uD55C \u00E9y")));
  const TokenRange range = find_subject(tokens, text, "\u1161");
  CHECK(tokens[range.begin].begin <= text.find("\u1112"));
  CHECK(tokens[range.end - 1].end == text.find(" e"));
  CHECK(tokens.back().end == text.size());
}

TEST_CASE("a folder without a tokeniser says what was looked for") {
  const TemporaryFolder folder;
  CHECK(complaint_about(folder) == Contains("has no tokeniser; expected vocab.json and merges.txt"));
  folder.write("vocab.json", "{}");
  CHECK(complaint_about(folder) == Contains("has vocab.json but no merges.txt"));
  CHECK(testing::message_of<Error>([&] { Tokenizer::load(folder.path() / "absent"); }) ==
        Contains("absent: no such folder"));
}

TEST_CASE("text that is not UTF-8 is refused by the byte's place and value") {
  const auto complaint = [](std::string_view text) {
    return testing::message_of<Error>([&] { fixture().encode(text); });
  };
  CHECK(complaint("ab\xFFz") == Contains("text, byte 2: found 0xFF"));
  CHECK(complaint("é\xC3") == Contains("text, byte 2: found 0xC3"));
  CHECK(complaint("\xED\xA0\x80") == Contains("text, byte 0: found 0xED"));  // a surrogate
}

TEST_CASE("an id outside the vocabulary is refused with the range that is inside") {
  const std::string last = std::to_string(fixture().size() - 1);
  for (const std::int32_t id : {-1, fixture().size(), 1 << 30}) {
    const Ids ids = {1, id};
    CHECK(testing::message_of<Error>([&] { fixture().decode(ids); }) ==
          Contains("position 1: " + std::to_string(id) + " is not in the vocabulary; expected 0 to " + last));
    CHECK(testing::message_of<Error>([&] { (void)fixture().token_bytes(id); }) == Contains("expected 0 to " + last));
  }
}

TEST_CASE("a vocabulary without a token for a byte refuses the texts that need it, and no others") {
  const TemporaryFolder folder;
  folder.write("vocab.json", R"({"a": 0, "b": 1, "ab": 2})");
  folder.write("merges.txt", "a b\n");
  const Tokenizer tokenizer = Tokenizer::load(folder.path());
  CHECK(ids_of(tokenizer.encode("abba")) == Ids{2, 1, 0});
  CHECK(testing::message_of<Error>([&] { tokenizer.encode("ab c"); }) ==
        Contains("text, byte 2: the byte 0x20 has no token in this vocabulary"));
}

TEST_CASE("a long word is split in reasonable time and comes back") {
  const std::string text = std::string(200'000, 'a') + std::string(200'000, ' ') + "x";
  CHECK(fixture().decode(ids_of(fixture().encode(text))) == text);
}

TEST_CASE("several threads may use one tokeniser") {
  const std::string text = testing::tokenizer_goldens()["texts"].dump();
  const Ids expected = ids_of(fixture().encode(text));
  std::vector<Ids> found(4);
  std::vector<std::thread> threads;
  for (Ids& ids : found) threads.emplace_back([&] { ids = ids_of(fixture().encode(text)); });
  for (std::thread& thread : threads) thread.join();
  for (const Ids& ids : found) CHECK(ids == expected);
}

// ---------------------------------------------------------------------------------------------------------------------
// SentencePiece models

constexpr std::int32_t kByteZero = 3;
constexpr std::int32_t kSpace = 259;
constexpr std::int32_t kA = 260;
constexpr std::int32_t kSpaceA = 262;
constexpr std::int32_t kAB = 263;

Tokenizer load_model(const TemporaryFolder& folder, const std::string& bytes) {
  folder.write("tokenizer.model", bytes);
  return Tokenizer::load(folder.path());
}

TEST_CASE("a SentencePiece model is used as it is, with the space that it puts before a text") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer = load_model(folder, small_model());
  CHECK(tokenizer.size() == 264);
  CHECK(ids_of(tokenizer.encode("ab a")) == Ids{kSpace, kAB, kSpaceA});
  CHECK(tokenizer.decode(Ids{kSpace, kAB, kSpaceA}) == "ab a");
  CHECK(tokenizer.token_bytes(kSpaceA) == " a");
  CHECK(tokenizer.token_bytes(kByteZero + 0xE2) == "\xE2");
  CHECK(tokenizer.token_bytes(1) == "<s>");
  CHECK(tokenizer.encode("").empty());
  CHECK(testing::message_of<Error>([&] { tokenizer.encode("\xFF"); }) == Contains("text, byte 0: found 0xFF"));
  CHECK(testing::message_of<Error>([&] { tokenizer.decode(Ids{264}); }) == Contains("expected 0 to 263"));
}

TEST_CASE("each of a character's byte pieces covers the whole character, the space before the text nothing") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer = load_model(folder, small_model());
  const auto tokens = tokenizer.encode("a😀b");
  REQUIRE(ids_of(tokens) ==
          Ids{kSpaceA, kByteZero + 0xF0, kByteZero + 0x9F, kByteZero + 0x98, kByteZero + 0x80, kA + 1});
  for (std::size_t i = 1; i <= 4; ++i) {
    CHECK(tokens[i].begin == 1);
    CHECK(tokens[i].end == 5);
  }
  const TokenRange range = find_subject(tokens, "a😀b", "😀");
  CHECK(range.begin == 1);
  CHECK(range.end == 5);

  const auto begins_odd = tokenizer.encode("😀");
  CHECK(begins_odd.at(0).id == kSpace);
  CHECK(begins_odd.at(0).end == 0);
  CHECK(begins_odd.at(1).end == 4);
}

TEST_CASE("tokenizer.json goes before vocab.json and merges.txt, and these before a SentencePiece model") {
  const TemporaryFolder folder;
  CHECK(load_model(folder, small_model()).size() == 264);
  folder.write("vocab.json", testing::content_of(kFixture / "vocab.json"));
  folder.write("merges.txt", testing::content_of(kFixture / "merges.txt"));
  CHECK(Tokenizer::load(folder.path()).size() == fixture().size());
  auto file = fixture_as_tokenizer_json();
  const auto id = fixture().size();
  file["added_tokens"].push_back({{"id", id}, {"content", "<|more|>"}});
  folder.write("tokenizer.json", file.dump());
  CHECK(Tokenizer::load(folder.path()).size() == id + 1);
}

TEST_CASE("a tokenizer.json that is not BPE leaves a SentencePiece model to be read, and is refused without one") {
  const TemporaryFolder folder;
  auto file = fixture_as_tokenizer_json();
  file["model"]["type"] = "Unigram";
  folder.write("tokenizer.json", file.dump());
  CHECK(complaint_about(folder) == Contains(R"(tokenizer.json: "model.type" is "Unigram"; expected "BPE")"));
  CHECK(load_model(folder, small_model()).size() == 264);
  file["model"].erase("type");  // of BPE, in old files
  folder.write("tokenizer.json", file.dump());
  CHECK(Tokenizer::load(folder.path()).size() == fixture().size());
}

TEST_CASE("a tokenizer.model that is no SentencePiece model is called so, and let be beside tokenizer.json") {
  const TemporaryFolder folder;
  folder.write("tokenizer.model", "IQ== 0\nIg== 1\nIw== 2\n");  // tiktoken's, as Llama 3 has it
  CHECK(complaint_about(folder) ==
        Contains("tokenizer.model: is no SentencePiece model; expected one, or the tokenizer.json"));
  folder.write("tokenizer.json", fixture_as_tokenizer_json().dump());
  CHECK(Tokenizer::load(folder.path()).size() == fixture().size());
}

TEST_CASE("a subject that has only byte pieces is found in front, in the middle and after a space") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer = load_model(folder, small_model());
  for (const std::string subject : {"😀", "川", "川a", "é日"}) {
    for (const std::string before : {"", "a", "ab ", "月", " "}) {
      const std::string prompt = before + subject + " ab";
      const auto tokens = tokenizer.encode_prompt(prompt);
      const auto range = find_subject(tokens, prompt, subject);
      CAPTURE(prompt);
      REQUIRE(range.begin < range.end);
      CHECK(tokens[range.begin].end > before.size());
      CHECK(tokens[range.begin].begin <= before.size());
      CHECK((range.begin == 0 || tokens[range.begin - 1].end <= before.size()));
      CHECK(tokens[range.end - 1].end == before.size() + subject.size());
      CHECK(tokens[range.end].begin >= before.size() + subject.size());
    }
  }
}

TEST_CASE("Llama's class puts its token before a prompt, and a space before a text that has none") {
  const TemporaryFolder folder;
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizerFast"})");
  const Tokenizer llama = load_model(folder, small_model());
  CHECK(ids_of(llama.encode_prompt("ab a")) == Ids{1, kSpace, kAB, kSpaceA});
  CHECK(ids_of(llama.encode_prompt(" a")) == Ids{1, kSpaceA});
  CHECK(llama.encode(" a").front().begin == 0);
  CHECK(llama.encode(" a").front().end == 2);
  CHECK(ids_of(llama.encode("a</s>a", SpecialTokens::kParse)) == Ids{kSpaceA, 2, kA});
  CHECK(ids_of(llama.encode_prompt("<s>a", SpecialTokens::kParse)) == Ids{1, 1, kA});

  folder.write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer", "legacy": true})");
  CHECK(ids_of(Tokenizer::load(folder.path()).encode("a</s>a", SpecialTokens::kParse)) == Ids{kSpaceA, 2, kSpaceA});
  folder.write("tokenizer_config.json", R"({"add_prefix_space": false, "add_bos_token": true, "bos_token": "</s>"})");
  CHECK(ids_of(Tokenizer::load(folder.path()).encode_prompt("a")) == Ids{2, kA});
}

TEST_CASE("without a named class, the model's type says what goes before a prompt") {
  const TemporaryFolder folder;
  const auto prefix = [&](const char* type) {
    folder.write("config.json", std::string(R"({"model_type": ")") + type + "\"}");
    const auto tokenizer = load_model(folder, small_model());
    return Ids(tokenizer.prefix_ids().begin(), tokenizer.prefix_ids().end());
  };
  CHECK(prefix("llama") == Ids{1});
  CHECK(prefix("mistral") == Ids{1});
  CHECK(prefix("gpt2") == Ids{});
}

TEST_CASE("a template beside a unigram model says what goes before a prompt") {
  const TemporaryFolder folder;
  const auto write = [&](const json& post_processor) {
    const json model = {{"type", "Unigram"}, {"vocab", {{"a", 1}}}};
    folder.write("tokenizer.json", json{{"model", model}, {"post_processor", post_processor}}.dump());
  };
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer"})");
  write(template_of(2, "A"));
  CHECK(ids_of(load_model(folder, small_model()).encode_prompt("")) == Ids{2});
  write(template_of(264, "A"));
  CHECK(complaint_about(folder) == Contains("the id 264 is not in the vocabulary; expected 0 to 263"));
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer", "add_bos_token": true})");
  write(nullptr);
  CHECK(ids_of(load_model(folder, small_model()).encode_prompt("a")) == Ids{kSpaceA});
}

TEST_CASE("files beside a SentencePiece model that are nested too deep are refused") {
  const TemporaryFolder folder;
  folder.write("tokenizer.model", small_model());
  const std::string brackets(60'000, '[');
  folder.write("tokenizer.json", "{\"post_processor\":" + brackets + std::string(60'000, ']') + "}");
  CHECK(complaint_about(folder) == Contains("tokenizer.json: nested deeper than 256 levels"));
  folder.write("tokenizer.json", "{}");
  folder.write("tokenizer_config.json", json{{"added_tokens_decoder", {{brackets, {{"content", "a"}}}}}}.dump());
  CHECK(complaint_about(folder) == Contains("token \"a\" has the id \"[[[["));
}

TEST_CASE("tokens that were added to a SentencePiece model have ids behind its own") {
  const TemporaryFolder folder;
  folder.write("added_tokens.json", R"({"<pad>": 264, "ba": 266})");
  folder.write("special_tokens_map.json", R"({"pad_token": "<pad>"})");
  const Tokenizer tokenizer = load_model(folder, small_model());
  CHECK(tokenizer.size() == 267);
  CHECK(ids_of(tokenizer.encode("<pad>", SpecialTokens::kParse)) == Ids{264});
  CHECK(ids_of(tokenizer.encode("<pad>")).size() > 1);
  CHECK(tokenizer.encode("aba").at(1).id == 266);
  CHECK(tokenizer.token_bytes(264) == "<pad>");
  CHECK(tokenizer.token_bytes(265) == "");
  CHECK(tokenizer.decode(Ids{kSpaceA, 266, kAB}) == "abaab");
  folder.write("added_tokens.json", R"({"ab": 264})");
  CHECK(complaint_about(folder) == Contains("\"ab\" has the id 264, which has the id 263 in the vocabulary"));
}

TEST_CASE("a text is made lower case where the configuration says so, and its ranges stay its own") {
  const TemporaryFolder folder;
  folder.write("tokenizer_config.json", R"({"do_lower_case": true})");
  const Tokenizer tokenizer = load_model(folder, small_model());
  const auto tokens = tokenizer.encode("A\u0130AB");  // the capital I with a dot becomes three bytes of two letters
  CHECK(ids_of(tokens) == Ids{kSpaceA, kByteZero + 'i', kByteZero + 0xCC, kByteZero + 0x87, kAB});
  CHECK(tokens[1].begin == 1);
  CHECK(tokens[2].end == 3);
  CHECK(tokens[4].begin == 3);
  CHECK(tokens[4].end == 5);
}

TEST_CASE("a model that is cut off is refused wherever it is cut") {
  const TemporaryFolder folder;
  const std::string model = small_model();
  for (std::size_t length = 0; length < model.size(); length += 37) {
    CAPTURE(length);
    folder.write("tokenizer.model", model.substr(0, length));
    CHECK(complaint_about(folder) == Contains("tokenizer.model: "));
  }
}

TEST_CASE("a damaged model is an Error or a model, never a crash") {
  const TemporaryFolder folder;
  const std::string model = small_model();
  std::mt19937 generator(3);
  for (int i = 0; i < 300; ++i) {
    std::string damaged = model;
    for (unsigned n = generator() % 8; n > 0; --n)
      damaged[generator() % damaged.size()] = static_cast<char>(generator());
    try {
      load_model(folder, damaged).encode("ab a😀");
    } catch (const Error& error) {
      CHECK(testing::is_one_line(error.what()));
    }
  }
}

}  // namespace
}  // namespace rometrace::tokenizer_test
