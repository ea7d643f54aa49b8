#pragma once

namespace rometrace::cli {

/// Command line -> options -> one command -> exit status. All that the executable does: results go to stdout, the rest
/// to stderr, no exception leaves. Call once in a process, before any thread is started.
int run_program(int argc, char** argv);

/// Ends the process with a status that run_program() gave. What has been written is flushed; static objects are not
/// destroyed: libtorch's take longer than many a command.
[[noreturn]] void leave_program(int status);

}  // namespace rometrace::cli
