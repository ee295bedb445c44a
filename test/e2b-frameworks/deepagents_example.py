"""LangChain's deep agents on an E2B sandbox, with a scripted model."""
from deepagents import create_deep_agent
from e2b import Sandbox
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_e2b import E2BSandbox


class Scripted(GenericFakeChatModel):
    def bind_tools(self, *_, **__):
        return self


def call(number, name, **arguments):
    return AIMessage(content="", tool_calls=[{"name": name, "args": arguments, "id": str(number), "type": "tool_call"}])


model = Scripted(
    messages=iter(
        [
            call(1, "write_file", file_path="/home/user/note.txt", content="written by the agent\n"),
            call(2, "execute", command="wc -w < /home/user/note.txt; id -un"),
            call(3, "read_file", file_path="/home/user/note.txt"),
            AIMessage(content="it is done"),
        ]
    )
)
sandbox = Sandbox.create()
try:
    agent = create_deep_agent(model=model, backend=E2BSandbox(sandbox=sandbox))
    result = agent.invoke({"messages": [{"role": "user", "content": "Write a note and count its words."}]})
    said = [str(message.content) for message in result["messages"]]
    assert any("4" in each and "user" in each for each in said), said
    assert any("written by the agent" in each for each in said), said
    print("answer:", said[-1])
finally:
    sandbox.kill()
