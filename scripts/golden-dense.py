"""Loss curve of the Dense 64-64-1 network by PyTorch in float64, for test/engine/sequential.test.ts: python scripts/golden-dense.py > test/golden/engine/dense.json"""
import json
import torch
torch.set_default_dtype(torch.float64)
state=7
def rnd():
    global state
    state=state*16807%2147483647
    return state/2147483647-0.5
def mat(r,c,s=1.0): return torch.tensor([[rnd()*s for _ in range(c)] for _ in range(r)])
W=[mat(10,64,.5),mat(64,64,.3),mat(64,1,.3)]; B=[torch.zeros(64),torch.zeros(64),torch.zeros(1)]
P=[p.clone().requires_grad_() for p in W+B]
X=mat(64,10); Y=(X[:,:1]*X[:,1:2]*4-X[:,2:3])
opt=torch.optim.Adam(P,lr=1e-3); losses=[]
for e in range(10):
    for i in range(0,64,20):
        x,y=X[i:i+20],Y[i:i+20]
        h=torch.relu(x@P[0]+P[3]); h=torch.relu(h@P[1]+P[4]); o=h@P[2]+P[5]
        l=((o-y)**2).mean(); opt.zero_grad(); l.backward(); opt.step(); losses.append(l.item()*len(x))
    losses[-4:]=[sum(losses[-4:])/64]
print(json.dumps(losses))
